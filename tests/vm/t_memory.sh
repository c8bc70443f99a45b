# Memory runs short while the daemon serves what the kernel frees memory with: swap and dirty pages.
. "$(dirname "$0")/guest.sh"
need python3 mkswap swapon mkfs.ext4
memory_end() {
    local rc=$?
    rm -f /mnt/ballast/fill
    umount /mnt/ballast 2>/dev/null
    swapoff "${swap:-/none}" 2>/dev/null
    (exit $rc)
    guest_end
}
trap memory_end EXIT
pool --raid mirror
ok vpool volume create tank/swap --size 400M
ok vpool volume create tank/f --size 300M
attach tank/swap --ublk && swap=$dev
attach tank/f --ublk && files=$dev
ok mkswap "$swap"
ok swapon "$swap"
ok mkfs.ext4 -q "$files"
ok mount "$files" /mnt/v
available() { awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo; }
# Pages that the kernel had to find for the daemon's reactors: minor and major faults, field 10 and 12.
faults() { cat /proc/$daemon_pid/task/*/stat | awk '{ n += $10 + $12 } END { print n }'; }
swapped() { awk -v d="$swap" '$1 == d { print int($4 / 1024) }' /proc/swaps; }

# Pages of ramfs can be neither freed nor swapped: what is left is small, and everybody has to share it.
mkdir -p /mnt/ballast
ok mount -t ramfs ballast /mnt/ballast
head -c $(($(available) - 90))M /dev/zero >/mnt/ballast/fill
before=$daemon_pid
faults=$(faults)

step "a process that uses more memory than there is finds in it what it wrote, while files are written"
cat >"$T/hog.py" <<'EOP'
import mmap, os, struct, sys
PAGE, MIB = 4096, 1 << 20
device, wanted, most, pressed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
def swapped():  # MiB of the device that the kernel has in use
    with open("/proc/swaps") as swaps:
        return sum(int(line.split()[3]) >> 10 for line in swaps if line.split()[0] == device)
memory = mmap.mmap(-1, most * MIB)
rest = os.urandom(PAGE - 8)  # zram and zero detection have nothing to save here
pages = 0
# How much fits depends on what the kernel can free: the process grows until enough is swapped out.
while swapped() < wanted:
    if pages == most * MIB // PAGE:
        sys.exit(f"{most} MiB were written, only {swapped()} MiB are swapped out")
    for page in range(pages, pages + MIB // PAGE):
        memory[page * PAGE:(page + 1) * PAGE] = struct.pack("<Q", page) + rest
    pages += MIB // PAGE
open(pressed, "w").close()
for page in range(pages):
    if memory[page * PAGE:(page + 1) * PAGE] != struct.pack("<Q", page) + rest:
        sys.exit(f"page {page} is not what was written")
EOP
noise 8M >"$T/data"
python3 "$T/hog.py" "$swap" 48 $(($(available) + 300)) "$T/pressed" >"$T/hog" 2>&1 &
hog=$!
(for i in 1 2 3 4; do cp "$T/data" "/mnt/v/$i" || exit 1; done; sync -f /mnt/v) >"$T/files" 2>&1 &
copier=$!
until_ok 90 eval '[ -e "$T/pressed" ] || ! kill -0 $hog' || true
[ -e "$T/pressed" ] || fail "only $(swapped) MiB are swapped out, $(available) MiB are available: $(cat "$T/hog")"
# What the daemon had no memory for it would have waited for, and the kernel for it.
more=$(($(faults) - faults))
[ "$more" -lt 64 ] || fail "the daemon needed $more more pages"
ok timeout 30 vpool status tank
echo "pages that the daemon needed: $more, with a command: $(($(faults) - faults))"
wait $copier || fail "the files: $(cat "$T/files")"
wait $hog || fail "the process ended with $?: $(cat "$T/hog")"

step "nobody was killed for it, and the daemon is still the same"
! dmesg | grep -E 'Out of memory|oom-kill|blocked for more than' || fail "see above"
[ -e "/proc/$before" ] && ok vpool list

step "what was written under pressure is on the disks"
rm /mnt/ballast/fill
ok swapoff "$swap"
ok umount /mnt/v
ok mount "$files" /mnt/v
for i in 1 2 3 4; do cmp "$T/data" "/mnt/v/$i" || fail "file $i differs"; done
ok umount /mnt/v
ok fsck.ext4 -fn "$files"
