#!/usr/bin/env bash
# Out of space is a state (P8): enospc is exact up to the client, pause waits and goes on; reads,
# overwrites and flushes always work.
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdsh
daemon_start
ok vpool create tank --size 256M -o extent=4M "$T/d0"
for v in e p keep; do ok vpool volume create "tank/$v" --size 1G; done
ok vpool set tank/e full-policy=enospc
for v in e p keep; do ok vpool attach "tank/$v" --nbd "unix:$T/$v.sock"; done

step "policy enospc: the client gets ENOSPC, and only for writes that need space"
ok nbdsh -u "$(uri tank/keep "$T/keep.sock")" -c 'h.pwrite(b"k" * (8 << 20), 0); h.flush()'
cat >"$T/fill.py" <<'EOP'
import errno
at = 0
while True:
    try:
        h.pwrite(b"e" * (1 << 20), at)
    except nbd.Error as e:
        assert e.errno == errno.errorcode[errno.ENOSPC] or e.errnum == errno.ENOSPC, e
        break
    at += 1 << 20
    assert at < 1 << 30
assert at > 100 << 20, at
h.flush()
h.pwrite(b"E" * 4096, 0)                      # an overwrite
assert h.pread(4096, 0) == b"E" * 4096
assert h.pread(4096, 1 << 20) == b"e" * 4096
h.flush()
print(at >> 20, "MiB")
EOP
ok nbd_py "$(uri tank/e "$T/e.sock")" "$T/fill.py"
say "  $out"
same "$(field '.pools[0].level' vpool list)" full "level"
until_ok 5 sh -c 'vpool events | grep -q "pool.space.*full"' || fail "no event"
ok vpool status tank
grep -q 'space is full' <<<"$out" || fail "no warning: $out"

step "policy pause: a write waits, reads and overwrites of the same volume go on"
cat >"$T/pause.py" <<'EOP'
h.pwrite(b"p" * (64 << 10), 0)
h.flush()
print("done", flush=True)
EOP
nbd_py "$(uri tank/p "$T/p.sock")" "$T/pause.py" >"$T/paused" 2>&1 &
writer=$!
waits() { [ "$(field .waiting_requests vpool volume show tank/p)" -ge 1 ]; }
until_ok 10 waits || fail "nothing waits: $(cat "$T/paused")"
until_ok 5 sh -c 'vpool status tank | grep -q "is paused"' || true
ok vpool status tank
grep -q 'tank.p is paused: 1 requests* wait for space' <<<"$out" || fail "no warning: $out"
ok nbdsh -u "$(uri tank/keep "$T/keep.sock")" -c 'h.pwrite(b"K" * 4096, 0); h.flush(); assert h.pread(4096, 0) == b"K" * 4096'
kill -0 $writer || fail "the writer did not wait: $(cat "$T/paused")"

step "a checkpoint works in a full pool"
ok vpool checkpoint tank

step "room appears: what waited goes on by itself"
ok vpool detach tank/e
ok vpool volume delete tank/e
wait $writer || fail "the paused writer failed: $(cat "$T/paused")"
grep -q done "$T/paused" || fail "the paused writer: $(cat "$T/paused")"
ok nbdsh -u "$(uri tank/p "$T/p.sock")" -c 'assert h.pread(65536, 0) == b"p" * 65536'
not_full() { [ "$(field '.pools[0].level' vpool list)" = ok ]; }
until_ok 20 not_full || fail "the pool is still $(field '.pools[0].level' vpool list)"

step "discard gives space back too"
ok vpool set tank/keep full-policy=enospc
ok nbdsh -u "$(uri tank/keep "$T/keep.sock")" -c 'h.trim(8 << 20, 0); h.flush(); assert h.pread(4096, 0) == bytes(4096)'
empty() { [ "$(field .allocated_bytes vpool volume show tank/keep)" = 0 ]; }
until_ok 10 empty || fail "allocated: $(field .allocated_bytes vpool volume show tank/keep)"

step "SIGTERM while a write waits for space ends the daemon"
ok nbd_py "$(uri tank/keep "$T/keep.sock")" "$T/fill.py"
nbdsh -u "$(uri tank/p "$T/p.sock")" -c 'h.pwrite(b"w" * (32 << 20), 512 << 20)' >"$T/paused" 2>&1 &
writer=$!
until_ok 10 waits || fail "nothing waits: $(cat "$T/paused")"
daemon_stop
wait $writer && fail "the write was acknowledged by a daemon that ended"
daemon_start
ok nbdsh -u "$(uri tank/p "$T/p.sock")" -c 'assert h.pread(65536, 0) == b"p" * 65536'
same "$(field '.pools[0].level' vpool list)" full "level after a restart"
daemon_stop
