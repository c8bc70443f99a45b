#!/usr/bin/env bash
# Health: what is not well about a volume stands beside its state, in lists, in events, and in `status -x`.
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdsh
daemon_start

# attention: what `vpool status -x` says, in $out; it must exit with 3.
attention() {
    local rc=0
    out=$(vpool status -x 2>&1) || rc=$?
    [ "$rc" = 3 ] || fail "status -x exited with $rc instead of 3: $out"
}
health() { field ".health|join(\",\")" vpool volume show "$1"; }
is_told() { vpool events | grep -q "volume.health.*$1: $2"; }

step "where all is well status -x is silent and exits with 0"
ok vpool create tank --raid mirror:2 --size 128M -o extent=4M "$T/d0" "$T/d1" "$T/d2"
ok vpool volume create tank/m --size 256M
ok vpool volume create tank/s --size 64M --raid single
ok vpool attach tank/m --nbd "unix:$T/m"
ok vpool attach tank/s --nbd "unix:$T/s.sock"
ok nbdsh -u "$(uri tank/m "$T/m")" -c 'h.pwrite(b"m" * (8 << 20), 0); h.flush()'
ok nbdsh -u "$(uri tank/s "$T/s.sock")" -c 'h.pwrite(b"s" * (8 << 20), 0); h.flush()'
ok vpool status -x
same "$out" '' "status -x"
same "$(health tank/m)" '' "health"

step "paused: how many requests wait since when, by name, and an event at both ends"
ok vpool create small --size 64M -o extent=4M "$T/e0"
ok vpool volume create small/p --size 256M
ok vpool attach small/p --nbd "unix:$T/p"
nbdsh -u "$(uri small/p "$T/p")" -c 'h.pwrite(b"p" * (32 << 20), 0); h.pwrite(b"p" * (32 << 20), 32 << 20)
h.pwrite(b"p" * (32 << 20), 64 << 20); h.flush()' >"$T/writer" 2>&1 &
writer=$!
until_ok 15 is_told small/p paused || fail "no event: $(vpool events)"
same "$(health small/p)" paused "health"
same "$(field '.paused|.requests > 0 and .since > 1600000000' vpool volume show small/p)" true "paused"
ok vpool volume list small
grep -q 'small/p *online *paused' <<<"$out" || fail "list does not say it: $out"
attention
grep -q 'small/p is paused: [0-9]* requests wait' <<<"$out" || fail "status -x does not say it: $out"
grep -q 'pool tank' <<<"$out" && fail "a pool that is well is shown: $out"
same "$(vpool status -x --json | jq -r '.pools[0].health|join(",")')" paused,space "health of the pool"
kill $writer
wait $writer 2>/dev/null
until_ok 15 is_told small/p 'not paused' || fail "no event at the end: $(vpool events)"
ok vpool detach small/p --force
ok vpool destroy small

step "degraded: volumes that have a copy on a disk that is missing; damaged: blocks that no copy has"
ok vpool create one --size 64M -o extent=4M "$T/e1"
ok vpool volume create one/v --size 32M
ok vpool attach one/v --nbd "unix:$T/v"
ok nbdsh -u "$(uri one/v "$T/v")" -c 'h.pwrite(b"v" * (4 << 20), 0); h.flush()'
ok vpool detach tank/s
ok vpool volume delete tank/s
until_ok 10 eval '[ "$(field .pools[0].space.valid_bytes vpool status tank)" = 8388608 ]' # its space is back
ok vpool checkpoint tank
daemon_stop
mv "$T/d0" "$T/away"
python3 - "$T/e1" <<'EOP'
import sys
f = open(sys.argv[1], "r+b")
data = f.read()
at = data.index(b"v" * 4096, 1 << 20)
f.seek(at)
f.write(b"?" * 4096)
EOP
daemon_start
until_ok 15 is_told tank/m degraded || fail "no event: $(vpool events)"
same "$(health tank/m)" degraded "health"
nbdsh -u "$(uri one/v "$T/v")" -c 'h.pread(4 << 20, 0)' >/dev/null 2>&1 && fail "a wrong block was served"
until_ok 15 is_told one/v damaged || fail "no event: $(vpool events)"
same "$(health one/v)" damaged "health"
attention
grep -q 'tank/m is degraded' <<<"$out" || fail "status -x does not say it: $out"
grep -q 'one/v is damaged' <<<"$out" || fail "status -x does not say it: $out"
ok vpool list
grep -q 'degraded' <<<"$out" || fail "list does not say it: $out"
daemon_stop
