#!/usr/bin/env bash
# vpool scrub: all copies are read, what is bad is healed and named; it is steered, kept and told.
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdcopy python3 qemu-io
daemon_start
ok vpool create tank --raid mirror:2 --size 512M "$T/d0" "$T/d1"
ok vpool volume create tank/v --size 64M
ok vpool attach tank/v --nbd "unix:$T/n"
head -c 64M /dev/urandom >"$T/data"
ok nbdcopy --flush "$T/data" "$(uri tank/v "$T/n")"

# Flips one byte of DISK's copy of data blocks [FROM, TO).
flip() { # DISK FROM TO
    python3 - "$T/$1" "$2" "$3" "$T/data" <<'EOP'
import os, sys
disk, first, last = open(sys.argv[1], "r+b"), int(sys.argv[2]), int(sys.argv[3])
data = open(sys.argv[4], "rb")
data.seek(first * 4096)
wanted = {data.read(4096) for _ in range(first, last)}
flipped, end = 0, disk.seek(0, 2)
for at in range(1 << 20, end, 4096):
    disk.seek(at)
    b = disk.read(4096)
    if b in wanted:
        disk.seek(at + 1000)
        disk.write(bytes([b[1000] ^ 0x40]))
        flipped += 1
disk.flush()
os.fsync(disk.fileno())
assert flipped == last - first, flipped
EOP
}
shown() { field "$1" vpool scrub tank --show; }
scrubbed() { # …options: a scrub from start to end
    ok vpool scrub tank --json "$@"
    job=$(jq -r .job <<<"$out")
    ok vpool jobs wait "$job"
}

step "none yet; what cannot be is refused"
same "$(shown .state)" none "state"
ok vpool scrub tank --show
grep -q 'never scrubbed' <<<"$out" || fail "show: $out"
refused 'not being scrubbed' vpool scrub tank --stop
refused 'nowhere' vpool scrub nowhere
usage 'one of --limit, --stop and --show' vpool scrub tank --stop --show

step "sound data: both copies were compared, nothing was found"
scrubbed
same "$(shown '[.state, .compared_bytes, (.findings|length), .metadata_bytes > 0]|tojson')" "[\"done\",$((2 * 64 << 20)),0,false]" "a sound pool" # no checkpoint has written pages yet
ok vpool checkpoint tank
scrubbed
same "$(shown '[.state, .metadata_bytes > 100000, (.findings|length)]|tojson')" '["done",true,0]' "metadata too"

step "bad copies are healed and named; what is bad everywhere is lost"
daemon_stop
flip d1 100 110
flip d0 8000 8001
flip d0 9000 9001
flip d1 9000 9001
daemon_start
scrubbed
same "$(shown '[.healed_blocks, .bad_blocks, .lost_blocks]|tojson')" '[11,0,2]' "blocks"
same "$(shown '.findings|map([.volume, .offset, .bytes, .disk, .what, .result])|sort|tojson')" \
    '[["tank/v",409600,40960,1,"checksum","healed"],["tank/v",32768000,4096,0,"checksum","healed"],["tank/v",36864000,4096,0,"checksum","lost"],["tank/v",36864000,4096,1,"checksum","lost"]]' "findings"
ok vpool scrub tank --show
grep -qE "tank/v +409600 +40960 +1 \($T/d1\) +checksum +healed +20" <<<"$out" || fail "show: $out"
until_ok 5 sh -c 'vpool events | grep -q "tank/v: 40960 bytes at 409600 on disk 1 .*healed"' || fail "no event: $(vpool events)"
until_ok 5 sh -c 'vpool events | grep -q "scrub is complete.*11 blocks healed, 0 bad, 2 lost"' || fail "no event: $(vpool events)"
ok vpool status tank
grep -q 'scrub     done; .*; 11 blocks healed; ended 20' <<<"$out" || fail "status: $out"
grep -q 'found 2 blocks of which no copy in service is good' <<<"$out" || fail "no warning: $out"

step "the lost block is written again; the next scrub finds nothing"
ok qemu-io -f raw -c "write -P 7 36864000 4096" "$(uri tank/v "$T/n")"
scrubbed
same "$(shown '[.state, .healed_blocks, .lost_blocks, (.findings|length)]|tojson')" '["done",0,0,0]' "after the heal"

step "limited, paused over a restart, stopped; its last result stays"
ok vpool scrub tank --limit 1M --json
job=$(jq -r .job <<<"$out")
refused 'being scrubbed already' vpool scrub tank
ok vpool jobs pause "$job"
same "$(shown .state)" paused "state"
ok vpool status tank
! grep -q 'is paused' <<<"$out" || fail "a paused scrub is no worry: $out"
daemon_stop
daemon_start
same "$(shown .state)" paused "state"
job=$(shown .job)
ok vpool jobs resume "$job"
ok vpool scrub tank --stop
until_ok 5 eval '[ "$(shown .state)" = stopped ]' || fail "state: $(shown .state)"
same "$(field '.jobs[]|select(.kind == "scrub")|.state' vpool jobs)" cancelled "job"

step "by time: a pool that was not scrubbed for so long is"
ok vpool create other --size 512M "$T/e0"
daemon_stop
printf 'import-wait = 0; scrub: { every-days = 1; limit = "100M"; };\n' >"$T/conf"
daemon_start -c "$T/conf"
until_ok 15 eval '[ "$(field .state vpool scrub other --show)" = done ]' || fail "$(vpool scrub other --show)"
same "$(shown .state)" stopped "the one of a moment ago"
daemon_stop
