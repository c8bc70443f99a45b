# XFS on a volume that is not mirrored.
. "$(dirname "$0")/guest.sh"
need mkfs.xfs xfs_repair
pool
ok vpool volume create tank/x --size 700M
attach tank/x --ublk --queues 2 --depth 32
ok mkfs.xfs -q "$dev"
ok mount "$dev" /mnt/v

step "files read back as they were written"
noise 40M >/mnt/v/file
sum=$(md5sum </mnt/v/file)
ok umount /mnt/v
ok mount "$dev" /mnt/v
[ "$(md5sum </mnt/v/file)" = "$sum" ] || fail "the file differs"
ok umount /mnt/v

step "xfs_repair finds nothing"
ok xfs_repair -n "$dev"
