# A disk of a mirror does not answer any more: dm suspends it under load.
. "$(dirname "$0")/guest.sh"
need dmsetup python3
modprobe dm-mod 2>/dev/null
# The device is suspended perhaps, and the daemon has it.
hung_end() {
    local rc=$?
    dmsetup resume slow 2>/dev/null
    sleep 0.5
    vpool detach tank/m --all --force >/dev/null 2>&1
    [ -z "$daemon_pid" ] || kill "$daemon_pid" && wait "$daemon_pid"
    daemon_pid=
    dmsetup remove --retry slow 2>/dev/null
    (exit "$rc")
    guest_end
}
trap hung_end EXIT
dmsetup create slow --table "0 $(blockdev --getsz /dev/vdb) linear /dev/vdb 0" || skip "no device mapper here"
echo 0 >"/sys/block/$(dmsetup info -c --noheadings -o blkdevname slow)/queue/rotational"
second=/dev/mapper/slow
pool --raid mirror
ok vpool volume create tank/m --size 256M
attach tank/m --ublk
state() { vpool --json status tank | jq -r '[.. | .disks? // empty] | flatten | map(select(.path | test("slow")))[0].state'; }

step "requests wait for it once, for 2 s at most; then it is out, by name"
python3 tests/vm/waits.py "$dev" "$T/stop" >"$T/waits" 2>&1 &
load=$!
sleep 1
dmsetup suspend --noflush slow
sleep 4
touch "$T/stop"
wait $load || fail "waits.py: $(cat "$T/waits")"
read -r longest long_ones requests <"$T/waits"
say "  longest wait $longest ms, $long_ones longer than 1 s, of $requests requests"
[ "$longest" -le 2000 ] || fail "a request waited $longest ms"
[ "$long_ones" -le 8 ] || fail "$long_ones requests waited: $(cat "$T/waits")"
[ "$(state)" = ejected ] || fail "its state is '$(state)'"
vpool status tank | grep -q 'slow.*does not answer' || fail "not named: $(vpool status tank)"

step "it does not return before its old requests have ended"
refused 'were given up when it did not answer' vpool online tank 1

step "the daemon ends, and the next one serves the pool, while they hang"
ok vpool detach tank/m
kill "$daemon_pid"
old=$daemon_pid
until_ok 20 grep -q 'vpoold ends while' "$T/log" || fail "the daemon does not end"
daemon_start
until_ok 60 eval 'vpool status tank | grep -q degraded' || fail "not imported: $(vpool list; tail -5 "$T/log")"
attach tank/m --ublk
[ "$(head -c 8 "$dev")" = 00000000 ] || fail "the data are not there"

step "it answers again, returns, and gets what it lacks"
dmsetup resume slow
wait "$old"
until_ok 20 vpool online tank 1 /dev/mapper/slow || fail "$(vpool online tank 1 /dev/mapper/slow 2>&1)"
until_ok 20 eval '[ "$(state)" = online ]' || fail "its state is '$(state)'"
ok vpool detach tank/m
ok vpool destroy tank
dmsetup remove --retry slow
