# kill -9 of the daemon, again and again, at any moment of its life, under loads that verify every block: past the
# page cache, with flushes and FUA, and through a file system. VPOOL_KILLS kills (10), VPOOL_SEED repeats their moments.
. "$(dirname "$0")/guest.sh"
need fio mkfs.ext4
loops=${VPOOL_KILLS:-10}
RANDOM=${VPOOL_SEED:=$((SRANDOM % 32768))}
say "VPOOL_SEED=$VPOOL_SEED"
pool --raid mirror
ok vpool volume create tank/f --size 200M
ok vpool volume create tank/k --size 256M
attach tank/f --ublk && files=$dev
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
requests() { vpool --json attachments | jq '[.attachments[].requests] | add'; }
served() { [ "$(requests)" -ge "$1" ]; }
nap() { sleep "0.$(printf '%03d' $((RANDOM % $1)))"; } # a random moment, not a wait

step "$loops kills: nobody sees an error or an old block"
for i in $(seq "$loops"); do
    until_ok 20 served $(($(requests) + 50)) || fail "kill $i: no request comes through: $(cat "$T/fio")"
    nap 100
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
    kill -0 $load 2>/dev/null || fail "fio ended after kill $i: $(cat "$T/fio")"
    kill -0 $copier 2>/dev/null || fail "copying ended after kill $i: $(cat "$T/copies")"
done
[ "$(vpool --json attachments | jq 'all(.attachments[]; .recovered)')" = true ] || fail "not recovered"
kill -INT $load
wait $load # interrupted, so its status says nothing
[ "$(grep -c 'err= 0:' "$T/fio")" = 3 ] || fail "fio: $(cat "$T/fio")"
! grep -q 'verify: bad' "$T/fio" || fail "fio: $(cat "$T/fio")"

step "the file system is consistent and has every file"
: >"$T/enough"
wait $copier || fail "copying: $(cat "$T/copies")"
ok umount /mnt/v
ok fsck.ext4 -fn "$files"
ok mount "$files" /mnt/v
for f in /mnt/v/[0-9]*; do cmp "$T/data" "$f" || fail "$f differs"; done
