# kill -9 of the daemon, again and again, at any moment of its life, under loads that verify every block: past the
# page cache, with flushes and FUA, in large pieces at odd sectors with discards and zeroes between them, and through a
# file system. VPOOL_KILLS kills (10), a takeover after every fifth, VPOOL_SEED repeats their moments.
. "$(dirname "$0")/guest.sh"
need fio mkfs.ext4 python3
loops=${VPOOL_KILLS:-10}
RANDOM=${VPOOL_SEED:=$((SRANDOM % 32768))}
say "VPOOL_SEED=$VPOOL_SEED"
pool --raid mirror
ok vpool volume create tank/f --size 200M
ok vpool volume create tank/k --size 256M
ok vpool volume create tank/m --size 16M
attach tank/f --ublk && files=$dev
attach tank/m --ublk --queues 2 && large=$dev
attach tank/k --ublk --queues 2
ok mkfs.ext4 -q "$files"
ok mount "$files" /mnt/v

fio --filename="$dev" --direct=1 --ioengine=libaio --bs=4k --rw=randwrite --verify=crc32c --verify_backlog=512 \
    --time_based --runtime=36000 --size=32M \
    --name=plain --iodepth=8 --name=flush --offset=64M --iodepth=4 --fdatasync=16 --name=fua --offset=128M --iodepth=4 --sync=dsync >"$T/fio" 2>&1 &
load=$!
# Copies one file under ever new names until told to stop; each is durable before the next.
noise 300K >"$T/data"
copies() {
    local n=0
    until [ -e "$T/enough" ]; do
        n=$((n % 100 + 1))
        cp "$T/data" "/mnt/v/$n" && sync "/mnt/v/$n" && cmp "$T/data" "/mnt/v/$n" || return 1
    done
}
copies >"$T/copies" 2>&1 &
copier=$!
python3 tests/vm/large_writes.py "$large" "$VPOOL_SEED" "$T/enough" >"$T/large" 2>&1 &
writer=$!
until_ok 60 grep -q begun "$T/large" || fail "the large writes do not begin: $(cat "$T/large")"
requests() { vpool --json attachments | jq '[.attachments[].requests] | add'; }
served() { [ "$(requests)" -ge "$1" ]; }
nap() { sleep "0.$(printf '%03d' $((RANDOM % $1)))"; } # a random moment, not a wait
loaded() { # WHEN: requests come through; then a random moment
    until_ok 20 served $(($(requests) + 50)) || fail "$1: no request comes through: $(cat "$T/fio")"
    nap 100
}
loads_go_on() { # WHEN
    kill -0 $load 2>/dev/null || fail "$1: fio ended: $(cat "$T/fio")"
    kill -0 $copier 2>/dev/null || fail "$1: copying ended: $(cat "$T/copies")"
    kill -0 $writer 2>/dev/null || fail "$1: the large writes ended: $(cat "$T/large")"
}

step "$loops kills, and takeovers between them: nobody sees an error or an old block"
for i in $(seq "$loops"); do
    loaded "before kill $i"
    daemon_kill
    # Its successor dies while it takes over, or just before or after. Older kernels (6.12) give a device whose taker
    # died before it had fetched from a queue to nobody any more.
    if [ $((RANDOM % 4)) = 0 ] && kernel_at_least 6.16; then
        vpoold -s "$VPOOL_SOCKET" --state-dir "$T/state" --foreground >>"$T/log" 2>&1 &
        daemon_pid=$!
        nap 400
        daemon_kill
    fi
    daemon_start
    loads_go_on "after kill $i"
    if [ $((i % 5)) = 0 ]; then
        loaded "before the takeover after kill $i"
        daemon_take_over
        loads_go_on "after the takeover after kill $i"
    fi
done
[ "$(vpool --json attachments | jq 'all(.attachments[]; .recovered)')" = true ] || fail "not recovered"
kill -INT $load
wait $load # interrupted, so its status says nothing
[ "$(grep -c 'err= 0:' "$T/fio")" = 3 ] || fail "fio: $(cat "$T/fio")"
! grep -q 'verify: bad' "$T/fio" || fail "fio: $(cat "$T/fio")"

step "large writes, discards and zeroes are what they were"
: >"$T/enough"
wait $writer || fail "the large writes: $(cat "$T/large")"
say "large writes: $(tail -1 "$T/large")"

step "the file system is consistent and has every file"
wait $copier || fail "copying: $(cat "$T/copies")"
ok umount /mnt/v
ok fsck.ext4 -fn "$files"
ok mount "$files" /mnt/v
for f in /mnt/v/[0-9]*; do cmp "$T/data" "$f" || fail "$f differs"; done
