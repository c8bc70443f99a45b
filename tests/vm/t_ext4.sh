# A file system on a volume: its files, its space, its consistency.
. "$(dirname "$0")/guest.sh"
pool --raid mirror
ok vpool volume create tank/a --size 500M
attach tank/a --ublk

step "files read back as they were written, also from the disks"
ok mkfs.ext4 -q "$dev"
ok mount "$dev" /mnt/v
noise 60M >/mnt/v/file
sum=$(md5sum </mnt/v/file)
ok umount /mnt/v
ok mount "$dev" /mnt/v
[ "$(md5sum </mnt/v/file)" = "$sum" ] || fail "the file differs"

step "a mounted device is not detached"
refused 'mounted or in use' vpool detach tank/a

step "a shrink under a mount is refused, and forced it names the mount"
refused 'in use .*/mnt/v' vpool volume resize tank/a --size 400M
ok vpool volume resize tank/a --size 400M --force --dry-run
grep -q /mnt/v <<<"$out" || fail "a forced shrink does not name the mount: $out"

step "fstrim gives space back to the pool"
full=$(used tank/a)
[ "$full" -ge $((60 << 20)) ] || fail "only $full bytes are allocated"
rm /mnt/v/file
sync
ok fstrim /mnt/v
until_ok 10 eval '[ "$(used tank/a)" -le $((full - (58 << 20))) ]' || fail "$(used tank/a) of $full bytes are still allocated"

if kernel_at_least 6.16; then
    step "a mounted file system grows with its volume"
    blocks() { stat -f -c %b /mnt/v; }
    before=$(blocks)
    ok vpool volume resize tank/a --size 700M
    until_ok 5 eval '[ "$(blockdev --getsize64 "$dev")" = $((700 << 20)) ]' || fail "the device did not grow"
    ok resize2fs "$dev"
    [ "$(blocks)" -gt $((before * 5 / 4)) ] || fail "$(blocks) blocks after $before"
fi

step "fsck finds nothing"
ok umount /mnt/v
ok fsck.ext4 -fn "$dev"
ok vpool detach tank/a
[ ! -e "$dev" ] || fail "$dev is still there"
