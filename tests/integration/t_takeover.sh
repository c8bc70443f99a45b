#!/usr/bin/env bash
# vpoold --takeover: the place of a running daemon, or nothing changes.
# long: yes
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdinfo nbdcopy
pid_there() { vpool --json info | jq .pid; }
lives() { same "$(pid_there)" "$daemon_pid" "the daemon's pid"; }
# takeover PATTERN [options]: must be refused, saying PATTERN, and leave the running daemon alone.
not_taken() {
    local want=$1
    shift
    refused "$want" vpoold -s "$VPOOL_SOCKET" --state-dir "$T/state" --foreground --takeover "$@"
    lives
}
# The daemon's place is taken by a new one in the foreground.
take() {
    local old=$daemon_pid
    vpoold -s "$VPOOL_SOCKET" --state-dir "$T/state" --foreground --takeover "$@" >>"$T/log" 2>&1 &
    daemon_pid=$!
    wait "$old" || fail "the old daemon ended with $?"
    until_ok 10 daemon_answers || fail "the new one does not answer: $(tail "$T/log")"
    lives
}

step "without a running daemon it is an ordinary start"
daemon_start --takeover
ok vpool create tank --raid mirror:2 --size 512M "$T/d0" "$T/d1"
ok vpool volume create tank/a --size 64M
ok vpool attach tank/a --nbd "unix:$T/a"
u=$out
head -c 8M /dev/urandom >"$T/data"
truncate -s 64M "$T/data"
ok nbdcopy "$T/data" "$u"

step "pools, sockets and attachments go to the new daemon, and the old one ends cleanly"
take
ok nbdinfo --size "$u"
ok nbdcopy "$u" "$T/back"
cmp "$T/data" "$T/back" || fail "the data differ"
same "$(field '[.volumes[].name]|join(",")' vpool volume list tank)" a "volumes"
same "$(field '.pools[0].state' vpool list)" online "the pool"

step "also in the background, which ends when the new one serves"
old=$daemon_pid
ok vpoold -s "$VPOOL_SOCKET" --state-dir "$T/state" --takeover
wait "$old" || fail "the old daemon ended with $?"
daemon_pid=$(pid_there)
ok nbdinfo --size "$u"

step "a wrong configuration, socket group or log file is found before the running daemon is asked"
echo 'nonsense = 1;' >"$T/conf"
not_taken 'nonsense' -c "$T/conf"
echo 'socket-group = "no-such-group-here";' >"$T/conf"
not_taken 'no-such-group-here.*left alone' -c "$T/conf"
echo "log-file = \"$T/no/such/log\";" >"$T/conf"
not_taken 'no/such/log' -c "$T/conf"

step "so is a state directory that is not the running daemon's"
mkdir "$T/other"
refused 'state directory .*left alone' vpoold -s "$VPOOL_SOCKET" --state-dir "$T/other" --foreground --takeover
lives

step "a daemon that does not answer is left alone, and what to do is told"
kill -STOP "$daemon_pid"
refused 'does not answer.*kill -9' vpoold -s "$VPOOL_SOCKET" --state-dir "$T/state" --foreground --takeover
kill -CONT "$daemon_pid"
until_ok 5 lives

step "so is a lock that cannot be had"
mv "$T/state/vpoold.lock" "$T/state/lock"
mkdir "$T/state/vpoold.lock"
not_taken 'vpoold.lock: .*left alone'
rmdir "$T/state/vpoold.lock"
not_taken 'vpoold.lock: .*left alone'
mv "$T/state/lock" "$T/state/vpoold.lock"

step "twice at the same time: one daemon remains"
for i in 1 2; do
    vpoold -s "$VPOOL_SOCKET" --state-dir "$T/state" --takeover >"$T/take$i" 2>&1 &
    takers[i]=$!
done
taken=0
for i in 1 2; do wait "${takers[i]}" && taken=$((taken + 1)); done
[ $taken -ge 1 ] || fail "none took over: $(cat "$T"/take?)"
until_ok 5 vpool list || fail "nobody serves"
daemon_pid=$(pid_there)
ok nbdinfo --size "$u"
kill "$daemon_pid"
until_ok 10 test ! -e "/proc/$daemon_pid" || fail "the daemon does not end"

step "a daemon under systemd refuses, and says what to use"
python3 - "$T/notify" <<'P' &
import socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
time.sleep(60)
P
notify=$!
until_ok 5 test -S "$T/notify"
export NOTIFY_SOCKET=$T/notify
daemon_start
unset NOTIFY_SOCKET
kill $notify
not_taken 'systemctl restart'

daemon_stop

# fake MODE: what answers like a daemon, up to a point; see there.
fake() {
    rm -f "$VPOOL_SOCKET" "$T/state/asked"
    /usr/bin/python3 tests/integration/fake_daemon.py "$VPOOL_SOCKET" "$T/state" "$1" &
    daemon_pid=$!
    until_ok 5 test -S "$VPOOL_SOCKET" || fail "the fake daemon does not listen"
}
fake_end() { # fails unless it is there
    kill "$daemon_pid" || fail "it was ended"
    wait "$daemon_pid"
    daemon_pid=''
}
# take_paused: a takeover as far as its question for the pools, which the fake daemon does not answer yet.
take_paused() {
    rm -f "$T/state/asked"
    vpoold -s "$VPOOL_SOCKET" --state-dir "$T/state" --foreground --takeover >"$T/take" 2>&1 &
    taker=$!
    until_ok 10 test -e "$T/state/asked" || fail "the running daemon was not asked for its pools: $(cat "$T/take")"
}
# take_failed PATTERN: the takeover ended with 1, and said PATTERN.
take_failed() {
    local rc=0
    wait "$taker" || rc=$?
    same $rc 1 "the takeover's exit code"
    grep -qE -- "$1" "$T/take" || fail "it does not say '$1': $(cat "$T/take")"
}

step "what cannot be taken over from is told its version and left alone"
fake old
not_taken 'version 0.0.9.*cannot be taken over'
fake_end

step "what claims to be another process is left alone, and so is that one"
fake lies
refused "says that it is process $$: it was left alone" vpoold -s "$VPOOL_SOCKET" --state-dir "$T/state" --foreground --takeover
fake_end

step "SIGTERM or SIGINT before the running daemon is asked to leave ends the takeover alone"
fake pauses
for s in TERM INT; do
    take_paused
    kill -$s $taker
    kill -USR1 "$daemon_pid"
    take_failed "SIG$s ended the takeover.*left alone"
    lives
done
fake_end

step "a daemon that does not say whether it leaves is waited for and not killed"
fake hangs-up
not_taken 'does not say whether it leaves .*may still do so'
fake_end

step "when it ends all the same, its place is taken"
fake ends
take
daemon_stop

step "so it is when it ends by itself before it is asked"
fake pauses
take_paused
daemon_kill
daemon_pid=$taker
until_ok 10 daemon_answers || fail "the new one does not answer: $(cat "$T/take")"
lives
daemon_stop

step "a daemon that comes in the other's place meanwhile is left alone"
fake pauses
fake=$daemon_pid
take_paused
rm "$VPOOL_SOCKET"
daemon_start
kill -USR1 "$fake"
take_failed "process $daemon_pid, which answers now, was not asked for"
lives
kill "$fake"

step "who does not say which daemon is to leave is refused"
python3 - "$VPOOL_SOCKET" >"$T/answer" <<'P'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b'{"jsonrpc":"2.0","id":1,"method":"daemon.leave"}\n')
print(s.makefile().readline())
P
grep -q "RPC_PARAMS" "$T/answer" || fail "it answers $(cat "$T/answer")"
lives
daemon_stop
