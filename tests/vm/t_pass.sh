# vpool-bench as a ublk server: a bare disk, and a volume of a pool of its own.
. "$(dirname "$0")/guest.sh"
server=''
serve() { # [options of vpool-bench]: $server and $dev
    vpool-bench "$@" >"$T/serve" 2>&1 &
    server=$!
    until_ok 20 grep -q /dev/ublkb "$T/serve" || fail "no device: $(cat "$T/serve")"
    dev=$(head -1 "$T/serve")
    [ -b "$dev" ] || fail "'$dev' is not a block device"
}
serve_end() {
    kill "${1:--TERM}" "$server"
    wait "$server" || fail "vpool-bench ended with $?: $(cat "$T/serve")"
    [ ! -e "$dev" ] || fail "$dev is still there"
    [ ! -e "${dev/ublkb/ublkc}" ] || fail "the char device of $dev is still there"
}
queue() { cat "/sys/block/$(basename "$1")/queue/$2"; }

step "the device is the disk"
noise 8M | dd of=/dev/vda bs=1M oflag=direct iflag=fullblock 2>/dev/null
serve --ublk-pass /dev/vda --queues 2 --depth 32
[ "$(blockdev --getsize64 "$dev")" = "$(blockdev --getsize64 /dev/vda)" ] || fail "size $(blockdev --getsize64 "$dev")"
[ "$(queue "$dev" write_cache)" = "$(queue /dev/vda write_cache)" ] || fail "cache: $(queue "$dev" write_cache)"
[ "$(ls "/sys/block/$(basename "$dev")/mq" | wc -l)" = 2 ] || fail "not two queues"
cmp -n 8M "$dev" /dev/vda || fail "it reads something else than the disk"

step "what is written to it is on the disk, and nowhere else"
noise 3M >"$T/new"
head -c 8M /dev/vda >"$T/expected"
dd if="$T/new" of="$T/expected" bs=4k seek=300 conv=notrunc 2>/dev/null
dd if="$T/new" of="$dev" bs=4k seek=300 oflag=direct conv=fsync 2>/dev/null || fail "it cannot be written"
blkdiscard -f -z -o 1M -l 64k "$dev" || fail "no zeros"
dd if=/dev/zero of="$T/expected" bs=64k seek=16 count=1 conv=notrunc 2>/dev/null
ok blkdiscard -f -o 16M -l 1M "$dev"
blockdev --flushbufs /dev/vda
cmp -n 8M "$T/expected" /dev/vda || fail "the disk holds something else"

step "the disk is held as long as it is served"
refused 'in use' vpool-bench --ublk-pass /dev/vda
serve_end -TERM
grep -q ' 0 errors' "$T/serve" || fail "$(cat "$T/serve")"

if ! kernel_at_least 6.16; then
    step "zero copy is refused where the kernel has none"
    refused 'zero copy needs the ublk driver of Linux 6.16' vpool-bench --ublk-pass /dev/vda --zero-copy
    ! compgen -G '/dev/ublkc[0-9]*' || fail "it left a device"
else
    step "zero copy: requests of all sizes go to the disk and come from it as they are"
    serve --ublk-pass /dev/vda --zero-copy --queues 2 --depth 16
    for bs in 512 4096 20480 65536 196608 524288 2097152; do
        noise $((8 * bs)) >"$T/out"
        noise $((8 * bs)) >"$T/in"
        dd if="$T/out" of="$dev" bs=$bs seek=8 oflag=direct 2>/dev/null || fail "$bs bytes cannot be written"
        dd if="$T/in" of=/dev/vda bs=$bs seek=24 oflag=direct 2>/dev/null
        dd if=/dev/vda bs=$bs skip=8 count=8 iflag=direct 2>/dev/null | cmp - "$T/out" || fail "written by $bs: the disk holds something else"
        dd if="$dev" bs=$bs skip=24 count=8 iflag=direct 2>/dev/null | cmp - "$T/in" || fail "read by $bs: not what the disk holds"
    done

    step "zero copy: the same through the page cache, many requests at a time, and durable at once"
    noise 8M >"$T/out"
    dd if="$T/out" of="$dev" bs=1M seek=64 conv=fsync 2>/dev/null || fail "it cannot be written"
    dd if="$T/new" of="$dev" bs=64k seek=80M oflag=direct,dsync,seek_bytes 2>/dev/null || fail "it cannot be written with FUA"
    blockdev --flushbufs "$dev"
    cmp -n 8M -i 64M:0 "$dev" "$T/out" || fail "the page cache reads something else"
    blockdev --flushbufs /dev/vda
    cmp -n 8M -i 64M:0 /dev/vda "$T/out" || fail "the disk holds something else"
    cmp -n 3M -i 80M:0 /dev/vda "$T/new" || fail "the disk holds something else where it was written with FUA"

    step "zero copy: no byte went through the server, and the device goes"
    copied=$(awk '/^[rw]char/ {n += $2} END {print n}' "/proc/$server/io")
    [ "$copied" -lt 1000000 ] || fail "the server copied $copied bytes"
    serve_end -TERM
    grep -q ' 0 errors' "$T/serve" || fail "$(cat "$T/serve")"

    step "zero copy: a file in memory as well, which is otherwise read without the ring"
    truncate -s 16M /dev/shm/disk
    serve --ublk-pass /dev/shm/disk --zero-copy
    dd if="$T/new" of="$dev" bs=64k seek=3 oflag=direct 2>/dev/null || fail "it cannot be written"
    cmp -n 3M -i 192k:0 /dev/shm/disk "$T/new" || fail "the file holds something else"
    dd if="$dev" bs=64k skip=3 count=48 iflag=direct 2>/dev/null | cmp - "$T/new" || fail "it reads something else"
    serve_end -TERM
    rm /dev/shm/disk
fi

step "a volume is served likewise, and its pool goes with it"
serve --ublk-volume --disk "$T/disk" --size 64M
dd if="$T/new" of="$dev" bs=4k seek=77 oflag=direct 2>/dev/null || fail "it cannot be written"
dd if="$dev" bs=4k skip=77 count=768 iflag=direct 2>/dev/null | cmp - "$T/new" || fail "it reads something else"
serve_end -INT
[ ! -e "$T/disk" ] || fail "the pool's file is still there"

step "options that mean nothing are refused"
for wrong in '--ublk-volume --checksum --disk /dev/vdb' '--ublk-pass /dev/vda --disk /dev/vdb' '--ublk-volume --ublk-pass /dev/vda' '--ublk-pass /dev/vda --queues 17' \
    '--ublk-volume --zero-copy --disk /dev/vdb' '--ublk-pass /dev/vda --checksum --zero-copy'; do
    rc=0
    # shellcheck disable=SC2086
    vpool-bench $wrong >/dev/null 2>&1 || rc=$?
    [ $rc = 2 ] || fail "vpool-bench $wrong: exit $rc"
done
