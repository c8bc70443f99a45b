# LVM on a partition of a device: what people put between a disk and a file system.
. "$(dirname "$0")/guest.sh"
need pvcreate vgcreate lvcreate lvextend sfdisk mkfs.ext4
modprobe dm_mod || skip "this kernel has no device mapper"
# No udevd here: LVM scans /dev by itself and makes its nodes by itself.
LVM_SYSTEM_DIR=$T/lvm && export LVM_SYSTEM_DIR && mkdir -p "$T/lvm"
cat >"$T/lvm/lvm.conf" <<'EOC'
devices { use_devicesfile = 0 obtain_device_list_from_udev = 0 external_device_info_source = "none" }
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
backup { backup = 0 archive = 0 }
EOC
lvm_end() {
    local rc=$?
    umount /mnt/v 2>/dev/null
    dmsetup remove -f vg-lv >/dev/null 2>&1
    (exit $rc)
    guest_end
}
trap lvm_end EXIT
pool --raid mirror
ok vpool volume create tank/l --size 400M
attach tank/l --ublk --queues 2

step "a volume group on a partition holds a file system"
echo ',,V' | sfdisk -q "$dev" >/dev/null || fail sfdisk
ok pvcreate "${dev}p1"
ok vgcreate vg "${dev}p1"
ok lvcreate -n lv -L 200M vg
ok mkfs.ext4 -q /dev/vg/lv
ok mount /dev/vg/lv /mnt/v
noise 20M >/mnt/v/file
sum=$(md5sum </mnt/v/file)
ok umount /mnt/v
ok mount /dev/vg/lv /mnt/v
[ "$(md5sum </mnt/v/file)" = "$sum" ] || fail "the file differs"

step "a pool on a device of its own daemon is refused, also through LVM and a file system"
for place in "$dev" "${dev}p1" /dev/vg/lv /mnt/v/disk.img; do
    refused 'stands on, /dev/ublkb' vpool create circle --force --size 64M "$place"
done
refused 'stands on, /dev/ublkb' vpool scan /dev/vg/lv
for place in "$dev" "${dev}p1" /dev/vg/lv; do
    refused 'stands on, /dev/ublkb' vpool import circle -d "$place"
done
[ ! -e /mnt/v/disk.img ] || fail "a refused creation left its file"

step "the file system grows with its logical volume"
ok lvextend -q -L 300M /dev/vg/lv
ok resize2fs /dev/vg/lv
[ "$(df --output=size -BM /mnt/v | tr -dc 0-9)" -gt 250 ] || fail "it did not grow: $(df /mnt/v)"

step "a device in LVM's hands is not detached, mounted or not"
refused 'mounted or in use' vpool detach tank/l
ok umount /mnt/v
refused 'mounted or in use' vpool detach tank/l

step "the daemon is killed under LVM, which sees nothing of it"
ok mount /dev/vg/lv /mnt/v
daemon_kill
noise 10M >/mnt/v/more &
writer=$!
daemon_start
wait $writer || fail "the write failed"
ok sync -f /mnt/v
[ "$(md5sum </mnt/v/file)" = "$sum" ] || fail "the file differs"
ok umount /mnt/v
ok fsck.ext4 -fn /dev/vg/lv

step "once LVM has let go of it the device is detached, and comes back with the volume group on it"
ok vgchange -q -an vg
ok vpool detach tank/l
attach tank/l --ublk
ok vgchange -q -ay vg
ok mount /dev/vg/lv /mnt/v
[ "$(md5sum </mnt/v/file)" = "$sum" ] || fail "the file differs"
ok umount /mnt/v

step "what LVM made goes away cleanly"
ok vgremove -qq -f vg
ok pvremove -qq "${dev}p1"
ok vpool detach tank/l
[ ! -e "$dev" ] || fail "$dev is still there"
