# The power is cut at flushes of the pool's disk: its writes are logged by dm-log-writes, replayed up to a flush onto
# another disk, and the pool is imported from there. One disk, since what must be shown is the order of what
# one disk is told to make durable; disks that lose power apart from each other are the simulator's (tests/sim).
. "$(dirname "$0")/guest.sh"
need python3 dmsetup mkfs.ext4
modprobe -a dm_log_writes dm_snapshot || skip "this kernel has no dm-log-writes"
modprobe brd rd_nr=1 rd_size=131072 max_part=0 || skip "this kernel has no brd"
power_end() {
    local rc=$?
    umount /mnt/v 2>/dev/null
    for v in tank/r tank/f; do vpool detach $v --all --force >/dev/null 2>&1; done
    vpool export tank >/dev/null 2>&1
    dmsetup remove -f cut >/dev/null 2>&1
    dmsetup remove -f logged >/dev/null 2>&1
    rmmod brd 2>/dev/null
    (exit $rc)
    guest_end
}
trap power_end EXIT
sectors=$((1 << 21))
ok dmsetup create logged --table "0 $sectors log-writes /dev/vda /dev/vdb"
daemon_start
ok vpool create tank --force -o extent=16M /dev/mapper/logged
ok vpool volume create tank/r --size 64M
ok vpool volume create tank/f --size 128M
attach tank/r --ublk --number 5
attach tank/f --ublk --number 6
ok mkfs.ext4 -q -E lazy_itable_init=0 "$dev"
ok mount "$dev" /mnt/v
sync
ok dmsetup message logged 0 mark ready
ok python3 tests/vm/power_cut.py write /dev/ublkb5 /mnt/v
ok dmsetup message logged 0 mark done
ok umount /mnt/v
ok vpool detach tank/r
ok vpool detach tank/f
ok vpool export tank
ok dmsetup remove logged

cuts=${VPOOL_CUTS:-8}
step "after a power cut at any flush the pool comes back, with everything that had been flushed"
ok python3 tests/vm/power_cut.py check /dev/vdb /dev/vde "$cuts"
say "$out"
