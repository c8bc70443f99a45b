# A full pool, as the users of block devices see it (P8).
. "$(dirname "$0")/guest.sh"
need mkfs.ext4 blkdiscard
small=/dev/vdd
[ "$(blockdev --getsize64 $small)" = $((96 << 20)) ] || skip "no small disk"
daemon_start
ok vpool create tank --force -o extent=4M $small
for v in e p; do ok vpool volume create "tank/$v" --size 256M; done
ok vpool set tank/e full-policy=enospc
level() { field '.pools[0].level' vpool list; }
is_full() { [ "$(level)" = full ]; }
waits() { [ "$(field .waiting_requests vpool volume show "$1")" -ge 1 ]; } # VOLUME
# What waited for room goes on and ends without an error.
goes_on() {
    until_ok 30 eval "! kill -0 $writer" || fail "it still waits: $(vpool status tank; vpool volume list)"
    wait $writer || fail "the writer: $(cat "$T/writer")"
}
# write DEVICE MIB [at MIB]: noise, past the page cache; for at most a minute.
write() { noise "$2M" | timeout 60 dd of="$1" bs=1M iflag=fullblock oflag=direct seek="${3:-0}" 2>"$T/dd"; }
# Takes all room that is left.
fill() {
    if ! vpool volume show tank/filler >/dev/null 2>&1; then
        ok vpool volume create tank/filler --size 256M
        ok vpool set tank/filler full-policy=enospc
        attach tank/filler --ublk && filler=$dev
    fi
    write "$filler" 120 && fail "120 MiB fitted"
    grep -q 'No space left on device' "$T/dd" || fail "not ENOSPC: $(cat "$T/dd")"
}

step "enospc: who needs space gets ENOSPC, and who overwrites, reads or flushes does not"
attach tank/e --ublk && e=$dev
write "$e" 4 || fail "the first write: $(cat "$T/dd")"
write "$e" 120 4 && fail "120 MiB fitted into $small"
grep -q 'No space left on device' "$T/dd" || fail "not ENOSPC: $(cat "$T/dd")"
is_full || fail "the pool is $(level)"
write "$e" 4 || fail "an overwrite: $(cat "$T/dd")"
ok timeout 60 dd if="$e" of=/dev/null bs=1M count=30 iflag=direct
ok timeout 60 blockdev --flushbufs "$e"

step "a discard gives space back at once"
ok blkdiscard -o 4M "$e"
until_ok 20 eval '[ "$(level)" = ok ]' || fail "the pool is $(level)"

step "enospc: a file system that met it keeps what it had, and fsck puts it right"
ok mkfs.ext4 -q "$e"
ok mount "$e" /mnt/v
noise 4M >/mnt/v/kept
ok sync -f /mnt/v
sum=$(md5sum </mnt/v/kept)
noise 120M | timeout 60 dd of=/mnt/v/grows bs=1M iflag=fullblock conv=fsync 2>"$T/dd" && fail "120 MiB fitted"
grep -q 'No space left on device' "$T/dd" || fail "not ENOSPC: $(cat "$T/dd")"
ok umount /mnt/v
fsck.ext4 -fy "$e" >"$T/fsck" 2>&1 # its own blocks met ENOSPC too, so that it may find something
[ $? -le 1 ] || fail "fsck: $(cat "$T/fsck")"
ok mount "$e" /mnt/v
[ "$(md5sum </mnt/v/kept)" = "$sum" ] || fail "the file differs"
rm -f /mnt/v/grows
ok fstrim /mnt/v
until_ok 20 eval '[ "$(level)" = ok ]' || fail "the pool is $(level)"
ok umount /mnt/v
ok fsck.ext4 -fn "$e"

step "pause: a writer waits, and reads and overwrites of the same device go on"
attach tank/p --ublk && p=$dev
write "$p" 4 || fail "the first write: $(cat "$T/dd")"
noise 8M >"$T/data"
fill
dd if="$T/data" of="$p" bs=1M oflag=direct seek=8 2>"$T/writer" &
writer=$!
until_ok 30 waits tank/p || fail "nothing waits; the pool is $(level), the writer: $(cat "$T/writer")"
write "$p" 4 || fail "an overwrite: $(cat "$T/dd")"
ok timeout 60 dd if="$p" of=/dev/null bs=1M count=4 iflag=direct
kill -0 $writer || fail "the writer did not wait: $(cat "$T/writer")"

step "pause: who waits goes on without an error when another volume is deleted"
ok vpool detach tank/filler
ok vpool volume delete tank/filler
goes_on
cmp <(dd if="$p" bs=1M iflag=direct skip=8 count=8 2>/dev/null) "$T/data" || fail "what was written differs"

step "pause: who waits goes on when space is discarded"
fill
dd if="$T/data" of="$p" bs=1M oflag=direct seek=150 2>"$T/writer" &
writer=$!
until_ok 30 waits tank/p || fail "nothing waits; the pool is $(level), the writer: $(cat "$T/writer")"
ok blkdiscard "$filler"
goes_on
cmp <(dd if="$p" bs=1M iflag=direct skip=150 count=8 2>/dev/null) "$T/data" || fail "what was written differs"

step "pause: a file system waits too, also while the daemon is killed, and then has everything"
ok blkdiscard "$p"
ok vpool set tank/e full-policy=pause
ok mkfs.ext4 -q "$e"
ok mount "$e" /mnt/v
fill
cp "$T/data" /mnt/v/file && sync -f /mnt/v 2>"$T/writer" &
writer=$!
until_ok 30 waits tank/e || fail "nothing waits; the pool is $(level)"
daemon_kill
daemon_start # which may find room itself: what its predecessor had leased ahead
ok blkdiscard "$filler"
goes_on
ok umount /mnt/v
ok fsck.ext4 -fn "$e"
ok mount "$e" /mnt/v
cmp "$T/data" /mnt/v/file || fail "the file differs"
ok umount /mnt/v

step "pause: large writes of a device that wait keep no buffers from reads, its own or of another"
echo 'reactors = 1; buffer-memory = "8M";' >"$T/conf"
daemon_kill
daemon_start -c "$T/conf"
fill
noise 16M | dd of="$p" bs=1M iflag=fullblock seek=200 conv=fsync 2>"$T/writer" &
writer=$!
until_ok 30 waits tank/p || fail "nothing waits; the pool is $(level)"
for d in "$e" "$p"; do ok timeout 30 dd if="$d" of=/dev/null bs=512k count=8 iflag=direct; done
waits tank/p || fail "the writer did not wait: $(cat "$T/writer")"
ok blkdiscard "$filler"
goes_on
