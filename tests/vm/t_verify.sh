# Every block that fio reads is checked, over four hardware queues.
. "$(dirname "$0")/guest.sh"
need fio
pool --raid mirror
ok vpool volume create tank/q --size 256M
attach tank/q --ublk --queues 4
verify() { fio --name=v --filename="$dev" --direct=1 --ioengine=libaio --bs=4k --verify=crc32c --randrepeat=1 "$@"; }

step "random writes verify"
[ "$(ls "/sys/block/$(basename "$dev")/mq" | wc -l)" = 4 ] || skip "this machine has fewer than 4 processors"
ok verify --rw=randrw --numjobs=4 --size=6M --offset_increment=64M --iodepth=16

step "a daemon that is stopped and started again costs no errors"
verify --rw=randwrite --size=24M --iodepth=16 >"$T/fio" 2>&1 &
load=$!
sleep 0.3
daemon_stop
daemon_start
wait $load || fail "fio: $(cat "$T/fio")"
