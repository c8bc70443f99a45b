# What `vpool attachments` says of a block device.
. "$(dirname "$0")/guest.sh"
pool --raid mirror
ok vpool volume create tank/a --size 64M
attach tank/a --ublk --number 3 --queues 2 --depth 16
figure() { vpool --json attachments | jq -r ".attachments[] | select(.volume == \"tank/a\") | .$1"; }
says() { same "$(figure "$1")" "$2" "$1"; }
grows() { [ "$(figure "$1")" -ge $(($2 + $3)) ]; } # FIGURE BEFORE BY

step "where it is, and how it is served"
says kind ublk
says uri /dev/ublkb3
says address ublk:3,queues=2,depth=16
says state serving
says read_only false
says user_copy true
says recovered false
says errors 0
says error ''

step "requests and bytes are counted"
requests=$(figure requests) written=$(figure bytes_written) read=$(figure bytes_read)
noise 2M | ok dd of="$dev" bs=64k iflag=fullblock oflag=direct
ok dd if="$dev" of=/dev/null bs=64k count=16 iflag=direct
grows requests "$requests" 48 || fail "$(figure requests) requests after $requests"
same $(($(figure bytes_written) - written)) $((2 << 20)) "bytes written"
grows bytes_read "$read" $((1 << 20)) || fail "$(figure bytes_read) bytes read after $read"
[ "$(figure write_latency.count)" -ge 32 ] || fail "$(figure write_latency.count) latencies of writes"
[ "$(figure read_latency.p99_ns)" -gt 0 ] || fail "reads of a disk that took no time: $(figure read_latency)"
vpool iostat tank | grep -qE '^ublk:3,queues=2,depth=16( +[0-9.]+[KMG]?){5}( +[0-9<]+[um]s){4}' || fail "iostat: $(vpool iostat tank)"
vpool attachments | grep -qE 'tank/a .*/dev/ublkb3' || fail "the table: $(vpool attachments)"

step "a device that is held counts as connected"
says connections 0
ok mkfs.ext4 -q "$dev"
ok mount "$dev" /mnt/v
until_ok 5 eval '[ "$(figure connections)" = 1 ]' || fail "$(figure connections) connections of a mounted device"
ok umount /mnt/v
until_ok 5 eval '[ "$(figure connections)" = 0 ]' || fail "$(figure connections) connections after umount"

step "a device that was taken over says so"
daemon_kill
daemon_start
says recovered true
says address ublk:3,queues=2,depth=16
says state serving

step "a read-only device says so, and one that is gone is not listed"
ok vpool detach tank/a
same "$(figure state)" '' "a detached device"
attach tank/a --ublk --number 3 --readonly
says read_only true
