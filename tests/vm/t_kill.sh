# kill -9 of the daemon, again and again, under a load that verifies every block.
. "$(dirname "$0")/guest.sh"
need fio
loops=${VPOOL_KILLS:-20}
pool --raid mirror
ok vpool volume create tank/k --size 256M
attach tank/k --ublk --queues 2
fio --name=k --filename="$dev" --direct=1 --ioengine=libaio --bs=4k --rw=randwrite --verify=crc32c --verify_backlog=512 \
    --size=64M --iodepth=8 --time_based --runtime=3600 >"$T/fio" 2>&1 &
load=$!

step "$loops kills: the load sees neither an error nor an old block"
for i in $(seq "$loops"); do
    before=$(vpool --json attachments | jq '.attachments[0].requests')
    until_ok 10 eval "[ \"\$(vpool --json attachments | jq '.attachments[0].requests')\" -gt $((before + 50)) ]" ||
        fail "kill $i: no request comes through: $(cat "$T/fio")"
    daemon_kill
    daemon_start
    kill -0 $load 2>/dev/null || fail "fio ended after kill $i: $(cat "$T/fio")"
done
[ "$(vpool --json attachments | jq '.attachments[0].recovered')" = true ] || fail "not recovered"
kill -INT $load
wait $load # interrupted, so its status says nothing
grep -q 'err= 0:' "$T/fio" || fail "fio: $(cat "$T/fio")"
! grep -q 'verify: bad' "$T/fio" || fail "fio: $(cat "$T/fio")"
