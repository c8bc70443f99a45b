#!/usr/bin/env bash
# Silent damage on one disk of a mirror is noticed, healed and counted (P7); on the only copy it is an
# error for that block alone.
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdcopy qemu-img nbdsh python3
daemon_start
ok vpool create tank --raid mirror:2 --size 512M "$T/d0" "$T/d1"
ok vpool volume create tank/v --size 64M
ok vpool attach tank/v --nbd "unix:$T/n"
head -c 64M /dev/urandom >"$T/data"
ok nbdcopy --flush "$T/data" "$(uri tank/v "$T/n")"
daemon_stop

# Flips one byte of DISK's copy of every data block whose number is RESIDUE modulo 7; at most COUNT.
flip() { # DISK RESIDUE COUNT
    python3 - "$T/$1" "$2" "$3" "$T/data" <<'EOP'
import sys
disk, residue, count = open(sys.argv[1], "r+b"), int(sys.argv[2]), int(sys.argv[3])
data = open(sys.argv[4], "rb").read()
wanted = {data[i:i + 4096] for i in range(0, len(data), 4096) if i // 4096 % 7 == residue}
flipped = 0
end = disk.seek(0, 2)
for at in range(1 << 20, end, 4096):
    disk.seek(at)
    b = disk.read(4096)
    if b in wanted and flipped < count:
        disk.seek(at + 1000)
        disk.write(bytes([b[1000] ^ 0x40]))
        flipped += 1
print(flipped)
EOP
}
counters() { field "[.pools[0].disks[].counters.$1]|add" vpool status tank; }
of_volume() { field ".counters.$2" vpool volume show "$1"; }

step "thousands of flipped bytes, on either disk: clients read the right data"
one=$(flip d0 0 100000) other=$(flip d1 3 100000)
[ "$one" -gt 2000 ] && [ "$other" -gt 2000 ] || fail "only $one and $other blocks were found to damage"
daemon_start
ok nbdcopy --connections=1 --requests=1 "$(uri tank/v "$T/n")" "$T/back"
cmp "$T/data" "$T/back" || fail "the data differ"

step "what was read has its latencies, in short and with their buckets"
same "$(field '.counters|.reads > 0 and .read_latency.count == .reads and .read_latency.mean_ns > 1000
    and .read_latency.p99_ns >= .read_latency.p50_ns' vpool volume show tank/v)" true "latency of reads"
ok vpool iostat tank
grep -qE 'd0( +[0-9.]+[KMG]?){5} +[0-9]+[um]s +[0-9]+[um]s +([0-9]+[um]s|-) +([0-9]+[um]s|-)' <<<"$out" || fail "iostat of a disk: $out"
grep -qE 'tank/v( +[0-9.]+[KMG]?){5} +[0-9]+[um]s +[0-9]+[um]s +- +-' <<<"$out" || fail "iostat: $out"

grep -qE "^unix:$T/n( +[0-9.]+[KMG]?){5} +[0-9]+[um]s +[0-9]+[um]s +- +-" <<<"$out" || fail "iostat of an attachment: $out"
same "$(field '.pools[0].attachments|map([.volume, .kind, .address, (.read_latency.count > 0)])|tojson' vpool iostat tank)" \
    "[[\"v\",\"nbd\",\"unix:$T/n\",true]]" "the attachment in JSON"

step "the counters say what happened, status warns, an event tells"
# A read takes one copy (damage on the other is not seen), and of parallel readers one heals:
# hence one request at a time above.
healed=$(counters healed_blocks) wrong=$(counters checksum_errors)
say "  $one and $other blocks damaged, $wrong wrong checksums seen, $healed blocks healed"
[ "$healed" -gt 1000 ] && [ "$wrong" -ge "$healed" ] || fail "healed $healed, wrong $wrong"
ok vpool status tank
grep -q 'were healed' <<<"$(tr '\n' ' ' <<<"$out")" || fail "no warning: $out"
told() { vpool events | grep -q disk.errors; }
until_ok 5 told || fail "no event"

step "what was healed stays healed, and the counters go on where they were"
healed=$(counters healed_blocks) wrong=$(counters checksum_errors)
daemon_stop
daemon_start
same "$(counters checksum_errors)" "$wrong" "wrong checksums after a restart"
same "$(counters healed_blocks)" "$healed" "healed blocks after a restart"
same "$(of_volume tank/v healed_blocks)" "$healed" "the volume's healed blocks after a restart"
same "$(of_volume tank/v checksum_errors)" 0 "the volume's failed reads"
# Each reading may choose other copies and find more, but no block a second time.
for _ in 2 3 4; do
    ok nbdcopy --connections=1 --requests=1 "$(uri tank/v "$T/n")" "$T/back"
    cmp "$T/data" "$T/back" || fail "the data differ"
done
wrong=$(counters checksum_errors)
say "  after four readings: $wrong wrong checksums seen"
[ "$wrong" -le $((one + other)) ] || fail "$wrong wrong checksums, $((one + other)) blocks were damaged"
same "$(counters healed_blocks)" "$wrong" "healed blocks after four readings"
ok vpool clear tank
same "$(counters checksum_errors)" 0 "wrong checksums after clear"
daemon_kill
daemon_start
same "$(counters checksum_errors)" 0 "wrong checksums after clear and a kill"
same "$(of_volume tank/v healed_blocks)" 0 "the volume's healed blocks after clear and a kill"
daemon_stop

step "on the only copy: EIO for the damaged block, everything else is served"
daemon_start
ok vpool create solo --size 256M "$T/s0"
ok vpool volume create solo/v --size 32M
ok vpool attach solo/v --nbd "unix:$T/m"
head -c 32M /dev/urandom >"$T/data"
ok nbdcopy --flush "$T/data" "$(uri solo/v "$T/m")"
daemon_stop
same "$(flip s0 0 1)" 1 "one block damaged"
daemon_start
cat >"$T/read.py" <<'EOP'
import errno
data = open(DATA, "rb").read()
bad = 0
for at in range(0, len(data), 4096):
    try:
        assert h.pread(4096, at) == data[at:at + 4096], at
    except nbd.Error as e:
        assert e.errnum == errno.EIO, e
        bad += 1
assert bad == 1, bad
EOP
sed -i "1i DATA = '$T/data'" "$T/read.py"
ok nbd_py "$(uri solo/v "$T/m")" "$T/read.py"

step "overwriting the damaged block repairs it"
ok nbdcopy --flush "$T/data" "$(uri solo/v "$T/m")"
ok nbdcopy "$(uri solo/v "$T/m")" "$T/back"
cmp "$T/data" "$T/back" || fail "the data differ"

step "that the volume was damaged is known after a restart, until it is cleared"
daemon_stop
daemon_start
same "$(of_volume solo/v checksum_errors)" 1 "failed reads after a restart"
same "$(field '.health|join(",")' vpool volume show solo/v)" damaged "health after a restart"
ok vpool clear solo
same "$(of_volume solo/v checksum_errors)" 0 "failed reads after clear"
same "$(field '.health|join(",")' vpool volume show solo/v)" '' "health after clear"
daemon_stop
