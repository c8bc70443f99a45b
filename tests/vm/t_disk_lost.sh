# A mirrored pool loses a disk under a device.
. "$(dirname "$0")/guest.sh"
second=/dev/vdc # of its own: it does not come back in every kernel
need fio
pool --raid mirror
ok vpool volume create tank/m --size 256M
attach tank/m --ublk
virtio=$(basename "$(readlink -f /sys/block/vdc/device)")

step "a disk is known by its serial number"
serials() { field '[.. | .serial? // empty] | join(" ")' vpool status tank; }
until_ok 20 eval '[[ "$(serials)" == *disk2* ]]' || fail "the serial numbers are '$(serials)'"

step "the device serves on, and what it had is all there"
fio --name=v --filename="$dev" --direct=1 --ioengine=libaio --bs=4k --verify=crc32c --rw=randwrite --size=24M --iodepth=16 >"$T/fio" 2>&1 &
load=$!
sleep 0.5
echo "$virtio" >/sys/bus/virtio/drivers/virtio_blk/unbind
wait $load || fail "fio: $(cat "$T/fio")"
vpool status tank | grep -q degraded || fail "not degraded: $(vpool status tank)"
vpool status tank | grep -q 'serial disk2) is ejected' || fail "not named: $(vpool status tank)"
ok vpool detach tank/m
