#!/usr/bin/env bash
# The file system below a disk of the pool runs full: no disk is dead for that. Writes wait, status
# says why, and everything goes on by itself when there is room again.
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdsh mount
[ "$(id -u)" = 0 ] || skip "a small file system needs root"
small=$T/small
mkdir "$small"
mount -t tmpfs -o size=16M none "$small" 2>/dev/null || skip "no mounts here"
trap 'rc=$?; if [ -n "$daemon_pid" ]; then kill -9 "$daemon_pid"; wait "$daemon_pid" 2>/dev/null; fi; umount "$small"; (exit $rc); cleanup' EXIT
daemon_start
ok vpool create tank --raid mirror:2 --size 256M "$T/d0" "$small/d1"
ok vpool volume create tank/v --size 128M
ok vpool attach tank/v --nbd "unix:$T/v.sock"
same "$(vpool status tank --json | jq -r '[.. | .state? // empty] | map(select(. == "ejected")) | length')" 0 "ejected disks before"

v() { timeout 30 nbdsh -u "$(uri tank/v "$T/v.sock")" -c "$1"; }
ok v 'h.pwrite(b"a" * (1 << 20), 100 << 20); h.flush()'

step "a write waits for room, and status says what is full"
cat >"$T/write.py" <<'EOP'
for i in range(64):
    h.pwrite(b"w" * (1 << 20), i << 20)
h.flush()
print("written", flush=True)
EOP
nbd_py "$(uri tank/v "$T/v.sock")" "$T/write.py" >"$T/write.out" 2>&1 &
writer=$!
until_ok 20 sh -c 'vpool status tank --json | grep -q "file system that holds it is full"' ||
    fail "status does not say what is full: $(vpool status tank)"
kill -0 "$writer" || fail "the writer did not wait: $(cat "$T/write.out")"
warnings() { field '.pools[0].warnings|map(select(.text|contains("small/d1")))|length' vpool status tank; }
until_ok 10 eval '[ "$(warnings)" = 1 ]' || fail "warnings: $(vpool status tank)"
told() { vpool events | grep 'disk.full' | grep -q "$1"; }
until_ok 5 told 'small/d1.*is full' || fail "no event: $(vpool events)"
same "$(field '.pools[0].health|join(",")' vpool status tank)" space health

step "meanwhile what is there can be overwritten and flushed, and a checkpoint ends"
ok v 'h.pwrite(b"b" * (1 << 20), 100 << 20); h.flush()'
ok timeout 30 vpool checkpoint tank
kill -0 "$writer" || fail "the writer did not wait: $(cat "$T/write.out")"

step "with room again it goes on by itself, and no disk was ejected"
mount -o remount,size=400M "$small"
wait "$writer" || fail "the writer failed: $(cat "$T/write.out")"
ok vpool status tank
grep -q 'ejected\|fenced\|degraded' <<<"$out" && fail "a disk was taken for dead: $out"
until_ok 5 told 'there is room again' || fail "no event of the end: $(vpool events)"
cat >"$T/read.py" <<'EOP'
for i in range(64):
    assert h.pread(1 << 20, i << 20) == b"w" * (1 << 20), i
assert h.pread(1 << 20, 100 << 20) == b"b" * (1 << 20)
EOP
ok nbd_py "$(uri tank/v "$T/v.sock")" "$T/read.py"
daemon_stop

step "a pool that finds no room for its metadata is refused, and says which file system is full"
umount "$small" && mount -t tmpfs -o size=2560K none "$small" || fail "no mount"
mv "$T/state" "$T/state-before"
daemon_start
refused 'small/d2.*file system that holds it' vpool create none --size 256M "$small/d2"
[ ! -e "$small/d2" ] || fail "a refused creation left its file"
daemon_stop
