#!/usr/bin/env bash
# vpool remove, vpool rebalance: data move between disks while clients write, and survive a kill.
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdcopy fio
daemon_start
ok vpool create tank --raid mirror:2 --size 256M "$T/d0" "$T/d1" "$T/d2"
ok vpool volume create tank/v --size 48M
ok vpool volume create tank/one --size 16M --raid single
ok vpool attach tank/v --nbd "unix:$T/n"
ok vpool attach tank/one --nbd "unix:$T/n1"
head -c 16M /dev/urandom >"$T/data"
ok nbdcopy --flush "$T/data" "$(uri tank/one "$T/n1")"
disks() { field '[.pools[0].disks[].index]|tojson' vpool status tank; }
state() { field ".pools[0].disks[]|select(.index==$1)|.state" vpool status tank; }
reads_right() {
    ok nbdcopy "$(uri tank/one "$T/n1")" "$T/back"
    cmp "$T/data" "$T/back" || fail "the data differ"
}

step "what cannot be removed is refused"
refused 'has no disk' vpool remove tank x
refused 'is not being removed' vpool remove tank 1 --cancel
refused 'no pool' vpool remove nowhere 1
ok vpool remove tank 1 --dry-run
grep -q '^nothing was changed; disk 1 of pool tank' <<<"$out" || fail "dry run: $out"
same "$(state 1)" online "after a dry run"

step "a disk is emptied and removed beside verified writes"
fio --name=w --ioengine=nbd --uri="$(uri tank/v "$T/n")" --rw=randwrite --bs=4k --size=48M --io_size=80M \
    --verify=crc32c --verify_fatal=1 --iodepth=8 --output="$T/fio" &
writer=$!
sleep 0.3
ok vpool remove tank 1
grep -q 'is removing' <<<"$out" || fail "remove: $out"
until_ok 30 eval '[ "$(disks)" = "[0,2]" ]' || fail "$(vpool status tank)"
wait "$writer" || fail "fio: $(tail -20 "$T/fio")"
reads_right
until_ok 5 sh -c 'vpool events | grep -q "disk.removed"' || fail "no event: $(vpool events)"
vpool status tank | grep -q 'nothing to worry about' || fail "$(vpool status tank)"
refused 'no disk' vpool offline tank 1

step "what was removed is free, and can be added again"
ok vpool add tank "$T/d1"
until_ok 20 eval '[ "$(state 3)" = online ]' || fail "$(vpool status tank)"

step "the daemon is killed while data move: it goes on, and nothing is lost"
for after in 0.05 0.3; do
    last=$(disks | jq '.[0]')
    path=$(field ".pools[0].disks[]|select(.index==$last)|.path" vpool status tank)
    vpool remove tank "$last" --limit 50M >/dev/null 2>&1 &
    remover=$!
    sleep "$after"
    daemon_kill
    wait "$remover" || true
    daemon_start
    until_ok 20 eval 'vpool list | grep -q "tank.*online"' || fail "the pool is not back: $(vpool status tank)"
    reads_right
    if [ "$(state "$last")" = removing ]; then # its limit is kept
        job=$(vpool jobs tank --json | jq -r '[.jobs[]|select(.kind=="remove" and .state=="running")][0].job')
        ok vpool jobs limit "$job" none
    elif [ -n "$(state "$last")" ]; then
        ok vpool remove tank "$last"
    fi
    until_ok 30 eval '[ -z "$(state "$last")" ]' || fail "$(vpool status tank)"
    reads_right
    ok vpool add tank "$path"
    until_ok 20 eval '! vpool status tank | grep -q rebuilding' || fail "$(vpool status tank)"
done

step "all disks get about as full"
ok vpool rebalance tank --dry-run
ok vpool rebalance tank
until_ok 30 eval '[ "$(vpool jobs tank --json | jq "[.jobs[]|select(.kind==\"rebalance\" and .state==\"done\")]|length")" = 1 ]' ||
    fail "$(vpool jobs tank)"
ok vpool rebalance tank --dry-run
grep -q '^nothing was changed; 0 would move' <<<"$out" || fail "after a rebalance: $out"
reads_right

step "a removal is cancelled"
last=$(disks | jq '.[0]')
ok vpool remove tank "$last" --limit 1M
ok vpool remove tank "$last" --cancel
until_ok 20 eval '[ "$(state "$last")" = online ]' || fail "$(vpool status tank)"
reads_right

step "a scrub finds nothing"
ok vpool scrub tank
until_ok 30 eval '[ "$(field .state vpool scrub tank --show)" = done ]' || fail "$(vpool scrub tank --show)"
same "$(field '[.bad_blocks,.lost_blocks,.healed_blocks]|tojson' vpool scrub tank --show)" '[0,0,0]' "scrub"

step "without room elsewhere it is refused, with the bytes"
for d in $(disks | jq '.[2:][]'); do
    ok vpool remove tank "$d"
    until_ok 30 eval '[ -z "$(state '"$d"')" ]' || fail "$(vpool status tank)"
done
last=$(disks | jq '.[0]')
paths=$(field '[.pools[0].disks[].path]|join(" ")' vpool status tank)
refused 'another copy of the same data; .vpool add tank DEVICE' vpool remove tank "$last"
reads_right
daemon_stop
# shellcheck disable=SC2086
ok vpool-check $paths
