#!/usr/bin/env bash
# The list of pools in the state directory: a pool that a restart would not find is not made in silence.
. "$(dirname "$0")/../lib/daemon.sh"
need jq
daemon_start
ok vpool create one --size 128M "$T/d0"

step "where the list cannot be written, no pool is made, and the file is named"
mkdir "$T/state/pools.json.new" # stands for a full file system: the file cannot be written
refused 'not created.*pools.json.new could not be written' vpool create two --size 128M "$T/d1"
grep -q 'left in the pool' <<<"$out" && fail "the pool is blamed: $out"
same "$(field '.pools|length' vpool list)" 1 "pools"

step "where a pool leaves and the list cannot be written, there is an event, and it is tried again"
ok vpool export one
ok vpool events
grep -q 'daemon.state-unsaved' <<<"$out" || fail "no event: $out"
rmdir "$T/state/pools.json.new"
until_ok 15 eval 'vpool events | grep -q daemon.state-saved' || fail "it was not written later"
same "$(jq '.pools|length' "$T/state/pools.json")" 0 "pools in the file"

step "afterwards pools are made, and found by a restart"
ok vpool create two --size 128M "$T/d1"
daemon_stop
daemon_start
same "$(field .pools[0].name vpool list)" two "the pool after a restart"
daemon_stop
