#!/usr/bin/env bash
# vpool add: a pool gets one more disk while it serves; a full one goes on; what it is survives a kill.
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdcopy fio nbdsh
daemon_start
ok vpool create tank --raid mirror:2 --size 256M "$T/d0" "$T/d1"
ok vpool volume create tank/v --size 1G
ok vpool attach tank/v --nbd "unix:$T/n"
disk() { field ".pools[0].disks[$1].$2" vpool status tank; }

step "what cannot be added is refused"
refused 'in use' vpool add tank "$T/d0"
refused 'such file' vpool add tank "$T/nothing"
truncate -s 1M "$T/tiny"
refused 'has 1M; a disk of pool tank needs' vpool add tank "$T/tiny"
truncate -s 512M "$T/d2"
mkfs.ext4 -q "$T/d2" 2>/dev/null || skip "no mkfs.ext4 here"
refused 'ext4' vpool add tank "$T/d2"
refused 'ext4' vpool add tank "$T/d2" --dry-run
refused 'spare' vpool add tank "$T/d2" --spare --dry-run
sum=$(sha256sum "$T/d2")
ok vpool add tank "$T/d2" --force --dry-run
grep -q "^nothing was changed; disk 2 of pool tank, $T/d2: 0 in use there; 1 disk may be lost now without a loss of data, 1 afterwards" <<<"$out" || fail "dry run: $out"
same "$(sha256sum "$T/d2")" "$sum" "the device after a dry run"
refused 'no pool' vpool add nowhere "$T/d2"
same "$(field '.pools[0].disks|length' vpool status tank)" 2 "disks"

step "a client's writes wait for room in a full pool, and go on when a disk is there"
head -c 400M /dev/urandom >"$T/data"
nbdcopy --flush "$T/data" "$(uri tank/v "$T/n")" &
writer=$!
until_ok 20 eval 'vpool status -x tank | grep -q space' || fail "the pool is not full: $(vpool status tank)"
until_ok 20 eval '[ "$(field .waiting_requests vpool volume show tank/v)" != 0 ]' || fail "no request waits"
ok vpool add tank "$T/d2" --force
grep -q "disk 2 of pool tank is rebuilding, at $T/d2" <<<"$out" || fail "add: $out"
# With two disks full and one empty there is no room for a second copy: another one is needed.
truncate -s 512M "$T/d3"
ok vpool add tank "$T/d3" --json
same "$(jq -r '[.disk, .pool]|tojson' <<<"$out")" '[3,"tank"]' "add"
wait "$writer" || fail "the client's writes failed"
until_ok 20 eval '[ "$(disk 2 state)$(disk 3 state)" = onlineonline ]' || fail "$(vpool status tank)"
ok nbdcopy "$(uri tank/v "$T/n")" "$T/back"
cmp -n "$(stat -c %s "$T/data")" "$T/data" "$T/back" || fail "the data differ"
until_ok 5 sh -c 'vpool events | grep -q "disk 3 .* was added"' || fail "no event: $(vpool events)"

step "the daemon is killed while it adds one: afterwards it is a disk, or it is not"
for after in 0 0.005 0.02 0.05; do
    truncate -s 64M "$T/e$after"
    vpool add tank "$T/e$after" >/dev/null 2>&1 &
    adder=$!
    sleep "$after"
    daemon_kill
    wait "$adder" || true
    daemon_start
    until_ok 20 eval 'vpool list | grep -q "tank.*online"' || fail "the pool is not back: $(vpool status tank)"
    until_ok 20 eval '! vpool status tank | grep -q rebuilding' || fail "it does not count: $(vpool status tank)"
    if vpool status tank | grep -q "$T/e$after "; then
        refused 'in use' vpool add tank "$T/e$after" --force
    else
        ok vpool add tank "$T/e$after" --force
    fi
done
until_ok 20 eval '[ "$(field ".pools[0].disks|map(select(.state==\"online\"))|length" vpool status tank)" = 8 ]' || fail "$(vpool status tank)"

step "all of it is there after a restart, and without two of the first disks' copies"
daemon_stop
daemon_start
ok nbdcopy "$(uri tank/v "$T/n")" "$T/back"
cmp -n "$(stat -c %s "$T/data")" "$T/data" "$T/back" || fail "the data differ"
ok vpool offline tank 2
ok nbdcopy "$(uri tank/v "$T/n")" "$T/back"
cmp -n "$(stat -c %s "$T/data")" "$T/data" "$T/back" || fail "the data differ"
ok vpool scan "$T"
grep -qE "tank .*8 of 8" <<<"$out" || fail "scan: $out"
daemon_stop
ok vpool-check "$T"/d[0-9] "$T"/e*
