# Attaching, refusing, resizing, detaching.
. "$(dirname "$0")/guest.sh"
pool
ok vpool volume create tank/a --size 100M
ok vpool volume create tank/b --size 100M

step "the device is what the volume is"
attach tank/a --ublk --number 7
[ "$dev" = /dev/ublkb7 ] || fail "number 7 became $dev"
[ "$(blockdev --getsize64 "$dev")" = $((100 << 20)) ] || fail "size $(blockdev --getsize64 "$dev")"
q=/sys/block/ublkb7/queue
[ "$(cat $q/write_cache)" = 'write back' ] || fail "cache: $(cat $q/write_cache)"
[ "$(cat $q/discard_granularity)" = 4096 ] || fail "granularity $(cat $q/discard_granularity)"

step "one device a volume, one volume a device"
refused 'already' vpool attach tank/a --ublk
refused 'somebody else' vpool attach tank/b --ublk --number 7
refused '1 to 16|1..16' vpool attach tank/b --ublk --queues 99

step "a read-only device refuses writes"
attach tank/b --ublk --readonly
[ "$(blockdev --getro "$dev")" = 1 ] || fail "$dev is writable"
dd if=/dev/zero of="$dev" bs=4k count=1 oflag=direct 2>/dev/null && fail "it was written to"
ok vpool detach tank/b

need sfdisk
step "a partition table is found, also after a restart of the daemon"
echo ',40M,L' | sfdisk -q /dev/ublkb7 >/dev/null || fail sfdisk
[ -b /dev/ublkb7p1 ] || fail "no partition"
daemon_kill
daemon_start
[ -b /dev/ublkb7p1 ] || fail "no partition after a kill"
head -c 1M /dev/ublkb7p1 >/dev/null || fail "the partition does not read"

step "a volume that grows"
ok vpool volume resize tank/a --size 200M
if kernel_at_least 6.16; then
    until_ok 5 eval '[ "$(blockdev --getsize64 /dev/ublkb7)" = $((200 << 20)) ]' || fail "the device did not grow"
else
    vpool events | grep -q 'keeps its size' || fail "not told that the device keeps its size"
fi

step "stopping while requests are in flight"
dd if=/dev/zero of=/dev/ublkb7 bs=64k count=1000000 oflag=direct 2>/dev/null &
writer=$!
sleep 0.3
ok vpool detach tank/a --force
wait $writer && fail "the writer saw no error"
[ ! -e /dev/ublkb7 ] || fail "the device is still there"
[ ! -e /dev/ublkc7 ] || fail "the char device is still there"

step "without the driver, what to do is told"
rmmod ublk_drv || fail "rmmod"
refused 'modprobe ublk_drv' vpool attach tank/a --ublk
