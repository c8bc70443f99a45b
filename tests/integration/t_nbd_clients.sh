#!/usr/bin/env bash
# threads: yes
# Real NBD clients on a mirrored volume: libnbd, nbdcopy, qemu, fio with verification.
. "$(dirname "$0")/../lib/daemon.sh"
need nbdinfo nbdcopy nbdsh qemu-img qemu-io fio jq
daemon_start
ok vpool create tank --size 768M --raid mirror:2 "$T/d0" "$T/d1"
ok vpool volume create tank/v --size 256M
ok vpool attach tank/v --nbd "unix:$T/v.sock"
u=$(uri tank/v "$T/v.sock")
head -c $((48 << 20)) /dev/urandom >"$T/random"

step "nbdinfo sees the size, the contexts and what can be done"
same "$(nbdinfo --size "$u")" $((256 << 20)) "size"
same "$(nbdinfo --size "$(uri '' "$T/v.sock")")" $((256 << 20)) "size by the empty name"
for can in flush fua trim zero fast-zero multi-conn df cache structured-reply; do
    ok nbdinfo --can "$can" "$u"
done
ok nbdinfo --list "$(uri '' "$T/v.sock")"
grep -q 'export="tank/v"' <<<"$out" || fail "list: $out"
refused 'no such export|No such' nbdinfo "$(uri tank/w "$T/v.sock")"
ok nbdinfo --map --totals "$u"
grep -qE '100\.0% +3 +hole,zero' <<<"$out" || fail "an untouched volume is not a hole: $out"

step "nbdcopy brings a file there and back, with several connections"
truncate -s 256M "$T/image"
dd if="$T/random" of="$T/image" bs=1M seek=16 conv=notrunc status=none
ok nbdcopy --connections=4 --flush "$T/image" "$u"
ok nbdcopy --connections=4 "$u" "$T/back"
cmp "$T/image" "$T/back" || fail "nbdcopy brought something else back"

step "holes stay holes"
allocated() { nbdinfo --map --totals --json "$u" | jq '[.[] | select(.type == 0) | .size] | add // 0'; }
same "$(allocated)" $((48 << 20)) "bytes of data in the map"

step "qemu-img compares, maps and converts"
ok qemu-img compare -f raw -F raw "$T/image" "$u"
same "$(qemu-img map --output=json -f raw "$u" | jq '[.[] | select(.data) | .length] | add')" $((48 << 20)) "qemu-img map"
ok qemu-img convert -f raw -O qcow2 "$u" "$T/q.qcow2"
ok qemu-img compare "$T/q.qcow2" -f qcow2 -F raw "$u"
ok qemu-img convert -n -f qcow2 -O raw "$T/q.qcow2" "$u"
ok qemu-img compare -f raw -F raw "$T/image" "$u"

step "qemu-io: patterns, zeroes, discards, odd offsets, FUA"
qio() {
    local args=()
    for c in "$@"; do args+=(-c "$c"); done
    out=$(qemu-io -f raw "${args[@]}" "$u" 2>&1) || fail "qemu-io: $out"
    ! grep -qE 'failed|error' <<<"$out" || fail "qemu-io: $out"
}
qio 'write -P 0x11 0 1M' 'write -P 0x22 4095 2' 'read -P 0x11 0 4095' 'read -P 0x22 4095 2' 'read -P 0x11 4097 65536'
qio 'write -z 512 100000' 'read -P 0 512 100000' 'read -P 0x11 0 512' 'read -P 0x11 100512 4096'
qio 'write -z -u 131072 262144' 'read -P 0 131072 262144' 'discard 524288 131072' 'read -P 0 524288 131072'
qio 'write -f -P 0x33 777 333' 'read -P 0x33 777 333' 'flush'
qio 'aio_write -P 0x44 64M 32M' 'aio_flush' 'read -P 0x44 64M 32M'

step "errors are exact"
cat >"$T/errors.py" <<'EOP'
import errno
def gets(wanted, f, *a):
    try:
        f(*a)
    except nbd.Error as e:
        assert e.errnum == wanted, (e.errnum, wanted)
    else:
        raise AssertionError("no error")
h.set_strict_mode(0)
size = h.get_size()
gets(errno.ENOSPC, h.pwrite, b"x" * 512, size)
gets(errno.ENOSPC, h.zero, 8192, size - 4096)
gets(errno.EINVAL, h.pread, 512, size - 1)
gets(errno.EINVAL, h.trim, 4096, size)
h.pwrite(b"last", size - 4)
assert h.pread(4, size - 4) == b"last"
EOP
ok nbd_py "$u" "$T/errors.py"

step "a flush on one connection covers writes of another"
cat >"$T/multi.py" <<'EOP'
b = nbd.NBD()
b.connect_uri(h.get_uri())
for i in range(50):
    h.pwrite(bytes([i]) * 4096, i * 4096)
    b.flush()
    assert b.pread(4096, i * 4096) == bytes([i]) * 4096
b.shutdown()
EOP
ok nbd_py "$u" "$T/multi.py"

step "a volume attached read-only refuses writes"
ok vpool attach tank/v --readonly --nbd "unix:$T/ro.sock"
ok nbdinfo --is read-only "$(uri tank/v "$T/ro.sock")"
cat >"$T/ro.py" <<'EOP'
import errno
h.set_strict_mode(0)
try:
    h.pwrite(b"x", 0)
    raise SystemExit("written")
except nbd.Error as e:
    assert e.errnum == errno.EPERM, e.errnum
EOP
ok nbd_py "$(uri tank/v "$T/ro.sock")" "$T/ro.py"
ok vpool detach tank/v --nbd "unix:$T/ro.sock"
[ ! -e "$T/ro.sock" ] || fail "the socket is still there"

step "TCP on the loopback"
ok vpool attach tank/v --nbd tcp:127.0.0.1:0
tcp=$(grep -oE 'nbd://[^ "]+' <<<"$out") || fail "no URI: $out"
same "$(nbdinfo --size "$tcp")" $((256 << 20)) "size by TCP"

step "fio writes and verifies (crc32c), two jobs, unix and TCP"
fio_size=48M
[ -z "$slow" ] || fio_size=8M
fio_run() {
    ok fio --output="$T/fio" --ioengine=nbd --uri="$1" --rw=randrw --bsrange=512-64k --bs_unaligned=1 --iodepth=16 \
        --verify=crc32c --verify_state_save=0 --size="$fio_size" --name=a --offset=0 --name=b --offset=64M
    ! grep -qE 'verify.*(bad|fail)|err= *[1-9]' "$T/fio" || fail "$(cat "$T/fio")"
}
fio_run "$u"
fio_run "$tcp"

step "everything is there after a restart, and the scrubbed accounting adds up"
ok nbdcopy "$u" "$T/before"
daemon_stop
daemon_start
until_ok 10 nbdinfo --size "$u" || fail "the attachment did not come back"
ok nbdcopy "$u" "$T/after"
cmp "$T/before" "$T/after" || fail "the volume changed over a restart"
daemon_stop
say "$steps behaviours"
