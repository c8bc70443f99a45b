# The kernel's NBD client on our server: another way to a block device, which also outlives the daemon.
. "$(dirname "$0")/guest.sh"
need nbd-client fio python3 mkfs.ext4
modprobe nbd max_part=4 || skip "this kernel has no NBD client"
keeper=''
nbd_end() {
    local rc=$?
    umount /mnt/v 2>/dev/null
    [ -z "$keeper" ] || kill "$keeper" 2>/dev/null
    nbd-client -d /dev/nbd0 >/dev/null 2>&1
    (exit $rc)
    guest_end
}
trap nbd_end EXIT
pool --raid mirror
ok vpool volume create tank/n --size 256M
ok vpool attach tank/n --nbd "unix:$T/n.sock"
verify=(fio --name=v --filename=/dev/nbd0 --direct=1 --ioengine=libaio --bs=4k --verify=crc32c --rw=randwrite)
connections() { vpool --json attachments | jq '.attachments[0].connections'; }

step "nbd-client makes a device, which holds a file system"
ok nbd-client -unix "$T/n.sock" /dev/nbd0 -N tank/n -C 2 -b 4096
same "$(blockdev --getsize64 /dev/nbd0)" $((256 << 20)) "size"
same "$(connections)" 2 "connections"
ok mkfs.ext4 -q /dev/nbd0
ok mount /dev/nbd0 /mnt/v
noise 20M >/mnt/v/file
sum=$(md5sum </mnt/v/file)
ok umount /mnt/v
ok mount /dev/nbd0 /mnt/v
[ "$(md5sum </mnt/v/file)" = "$sum" ] || fail "the file differs"
full=$(used tank/n)
rm /mnt/v/file
sync
ok fstrim /mnt/v
until_ok 10 eval '[ "$(used tank/n)" -le $((full - (18 << 20))) ]' || fail "$(used tank/n) of $full bytes are still allocated"
ok umount /mnt/v
ok fsck.ext4 -fn /dev/nbd0

step "blocks verify, and a disconnected client leaves nothing behind"
ok "${verify[@]}" --size=4M --iodepth=16
ok nbd-client -d /dev/nbd0
until_ok 10 eval '[ "$(connections)" = 0 ]' || fail "$(connections) connections are left"

# A load that verifies, while the daemon goes and comes back twice.
restarts() { # HOW
    local load
    "${verify[@]}" --size=16M --iodepth=8 --time_based --runtime=3600 --verify_backlog=256 >"$T/fio" 2>&1 &
    load=$!
    for _ in 1 2; do
        until_ok 10 eval '[ "$(vpool --json attachments | jq ".attachments[0].requests")" -gt 100 ]' || fail "no request comes through: $(cat "$T/fio")"
        "daemon_$1"
        daemon_start
        kill -0 $load 2>/dev/null || fail "fio ended: $(cat "$T/fio")"
    done
    until_ok 10 eval '[ "$(vpool --json attachments | jq ".attachments[0].requests")" -gt 100 ]' || fail "no request comes through: $(cat "$T/fio")"
    kill -INT $load
    wait $load # interrupted, so its status says nothing
    grep -q 'err= 0:' "$T/fio" && ! grep -q 'verify: bad' "$T/fio" || fail "fio: $(cat "$T/fio")"
}

step "a restart of the daemon under a client that reconnects: neither an error nor an old block"
python3 tests/vm/nbd_keep.py "$T/n.sock" tank/n 0 2 >"$T/keeper" 2>&1 &
keeper=$!
until_ok 10 grep -q connected "$T/keeper" || fail "no connection: $(cat "$T/keeper")"
restarts stop

step "kill -9 of the daemon under it: the same, for all that was answered"
restarts kill
