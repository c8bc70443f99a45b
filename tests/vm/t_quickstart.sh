# The quickstart where the kernel has ublk: a mounted block device, and nothing of it is left after.
# kernel: floor (what it asks of the kernel is in t_ext4, t_orphan and t_nbd_client)
. "$(dirname "$0")/guest.sh"
ok mkfs.ext4 -q /dev/vda
ok mount /dev/vda /mnt/v
export VPOOL_QUICKSTART_DIR=/mnt/v/quickstart

step "a block device is used, tested and taken away"
ok ./quickstart --test
grep -q 'mount /dev/ublkb' <<<"$out" || fail "$out"
grep -q 'mounted at /mnt/v/quickstart/mnt' <<<"$out" || fail "attachments do not say who uses it: $out"
[ -z "$(ls /sys/class/ublk-char)" ] || fail "left: $(ls /sys/class/ublk-char)"
[ ! -e /mnt/v/quickstart ] || fail "its directory is left"

step "clean takes the device away also when the daemon was killed"
ok ./quickstart
kill -9 "$(cat /mnt/v/quickstart/daemon.pid)"
ok ./quickstart clean
[ -z "$(ls /sys/class/ublk-char)" ] || fail "left: $(ls /sys/class/ublk-char)"

step "clean takes away all devices of its pool, and stops when one is in use"
ok ./quickstart
export VPOOL_SOCKET=/mnt/v/quickstart/vpoold.sock
ok vpool volume create demo/vm2 --size 100M
attach demo/vm2 --ublk
sleep 1000 <"$dev" &
reader=$!
refused 'end what uses the block device of demo/vm2.*quickstart clean' ./quickstart clean
ok vpool status demo
[ -b "$dev" ] || fail "$dev is gone"
kill $reader
wait $reader 2>/dev/null
ok ./quickstart clean
[ -z "$(ls /sys/class/ublk-char)" ] || fail "left: $(ls /sys/class/ublk-char)"
[ ! -e /mnt/v/quickstart ] || fail "its directory is left"

step "without the driver it is NBD"
ok rmmod ublk_drv
ok ./quickstart --test
grep -q 'nbdcopy' <<<"$out" || fail "$out"
