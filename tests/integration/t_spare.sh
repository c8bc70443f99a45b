#!/usr/bin/env bash
# Spares: one takes the place of a disk that failed, or is missing, by itself; never one that holds something.
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdcopy mkfs.ext4
printf 'import-wait = 0; spares: { after = 2; after-missing = 4; };\n' >"$T/conf"
conf=(-c "$T/conf")
daemon_start "${conf[@]}"
ok vpool create tank --raid mirror:2 --size 256M "$T/d0" "$T/d1"
ok vpool volume create tank/v --size 64M
ok vpool attach tank/v --nbd "unix:$T/n"
head -c 64M /dev/urandom >"$T/data"
ok nbdcopy --flush "$T/data" "$(uri tank/v "$T/n")"
disk() { field ".pools[0].disks[$1].$2" vpool status tank; }
spares() { field '.pools[0].spares|map([.path, .usable])|tojson' vpool status tank; }
whole() { [ "$(field '.pools[0].state' vpool status tank)" = online ]; }

step "what cannot be a spare is refused"
refused 'in use' vpool add tank "$T/d0" --spare
truncate -s 64M "$T/small"
refused 'has 64M; the smallest disk of pool tank uses' vpool add tank "$T/small" --spare
truncate -s 300M "$T/s0" "$T/s1"
mkfs.ext4 -q "$T/s0"
refused 'ext4' vpool add tank "$T/s0" --spare
same "$(spares)" '[]' "spares"
ok vpool add tank "$T/s0" --spare --force
ok vpool add tank "$T/s1" --spare
grep -q "$T/s0" <<<"$out" && grep -q "$T/s1" <<<"$out" || fail "add: $out"
refused 'is a spare of pool tank already' vpool add tank "$T/s1" --spare
refused "pool tank has no disk" vpool remove tank "$T/nothing"
ok vpool status tank
grep -q "spare     $T/s1" <<<"$out" || fail "status: $out"

step "a disk that an operator takes out is not replaced"
ok vpool offline tank 1
sleep 8
same "$(disk 1 state)" ejected "disk 1"
ok vpool online tank 1
until_ok 10 whole || fail "$(vpool status tank)"

step "a spare that holds something by now is passed over, and named"
mkfs.ext4 -q "$T/s0"
daemon_stop
mv "$T/d1" "$T/pulled"
daemon_start "${conf[@]}"
until_ok 20 eval '[ "$(disk 1 path)" = "$T/s1" ]' || fail "the spare did not come: $(vpool status tank)"
until_ok 20 whole || fail "$(vpool status tank)"
same "$(spares)" "[[\"$T/s0\",false]]" "spares"
until_ok 5 sh -c 'vpool events | grep -q "spare .*s0 cannot be used: .*ext4"' || fail "no event: $(vpool events)"
ok vpool status tank
grep -q "spare $T/s0 cannot be used" <<<"$out" || fail "no warning: $out"

step "all data are there, on the spare alone too"
ok vpool offline tank 0
ok nbdcopy "$(uri tank/v "$T/n")" "$T/back"
cmp "$T/data" "$T/back" || fail "the data differ"
ok vpool online tank 0
until_ok 20 whole || fail "$(vpool status tank)"

step "spares are remembered over a restart, and taken away"
daemon_stop
daemon_start "${conf[@]}"
same "$(field ".pools[0].spares[0].path" vpool status tank)" "$T/s0" "the spare"
ok vpool remove tank "$T/s0"
same "$(spares)" '[]' "spares"
daemon_stop
