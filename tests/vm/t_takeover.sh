# The daemon ends and the next one takes its devices: as a kill, a stop, a takeover. Users see a pause,
# its length is printed and bounded (P11: serving again within 2 s, or as long as this machine, which is
# emulated and may be slow just now, takes to restart a daemon without pools four times), and no error. And
# who may not take over.
. "$(dirname "$0")/guest.sh"
need fio
pool --raid mirror
ok vpool volume create tank/t --size 256M
attach tank/t --ublk --queues 2

killed() { daemon_kill; daemon_start; }
stopped() { daemon_stop; daemon_start; }

# empty_restart: a daemon without pools starts, answers and ends. Its milliseconds are in $empty_ms.
empty_restart() {
    local began pid
    began=$(date +%s%3N)
    vpoold -s "$T/empty" --state-dir "$T/empty.state" --foreground >/dev/null 2>&1 &
    pid=$!
    until_ok 10 vpool -s "$T/empty" list || fail "a daemon without pools does not answer"
    kill "$pid"
    wait "$pid" || fail "a daemon without pools ended with $?"
    empty_ms=$(($(date +%s%3N) - began))
}

# pause NAME COMMAND: the longest wait of a request while COMMAND runs under a load that verifies.
pause() {
    fio --name=t --filename="$dev" --direct=1 --ioengine=libaio --bs=4k --rw=randrw --verify=crc32c --verify_backlog=256 --size=64M \
        --iodepth=4 --time_based --runtime=8 --output-format=json --output="$T/fio" >/dev/null 2>&1 &
    local load=$! before limit_ms
    empty_restart
    limit_ms=$((4 * empty_ms > 2000 ? 4 * empty_ms : 2000))
    before=$(vpool --json attachments | jq '.attachments[0].requests')
    until_ok 10 eval "[ \"\$(vpool --json attachments | jq '.attachments[0].requests')\" -gt $((before + 200)) ]" || fail "no load"
    "$2"
    wait $load || fail "fio after $1: $(cat "$T/fio")"
    [ "$(jq '[.jobs[].error] | max' "$T/fio")" = 0 ] || fail "errors after $1: $(cat "$T/fio")"
    longest=$(jq '[.jobs[] | .read.lat_ns.max, .write.lat_ns.max] | max / 1000000 | floor' "$T/fio")
    echo "pause: $1: $longest ms, of $limit_ms ms allowed (an empty restart: $empty_ms ms)"
    [ "$(vpool --json attachments | jq '.attachments[0].recovered')" = true ] || fail "$1: the device was not taken over"
    [ "$longest" -le $limit_ms ] || fail "$1: users waited $longest ms"
}

step "kill -9 and a start"
pause 'kill -9 and start' killed
step "SIGTERM and a start"
pause 'SIGTERM and start' stopped
step "vpoold --takeover"
pause 'vpoold --takeover' daemon_take_over

# left_alone PATTERN COMMAND…: a takeover by way of COMMAND is refused, says PATTERN, and changes nothing.
left_alone() {
    local want=$1
    shift
    refused "$want.*left alone" "$@" vpoold -s "$VPOOL_SOCKET" --state-dir "$T/state" --foreground --takeover
    same "$(vpool --json info | jq .pid)" "$daemon_pid" "the daemon's pid"
}
step "a member of the socket's group who is not the daemon's user does not end it"
chmod 711 "$T"
left_alone "is user 0's, and this one would be user 65534's" setpriv --reuid=65534 --regid=65534 --groups=0
step "nor does root without its powers, who could not make the socket"
chmod 555 "$T"
left_alone 'where the socket would be made: Permission denied' setpriv --bounding-set=-all --inh-caps=-all
chmod 700 "$T"
