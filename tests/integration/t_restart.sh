#!/usr/bin/env bash
# Restarts: SIGTERM, SIGKILL, missing disks, a second daemon, a damaged cache. threads: yes
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdcopy qemu-img nbdinfo
daemon_start
ok vpool create tank --raid mirror:2 --size 1G "$T/d0" "$T/d1"
ok vpool create solo --size 512M "$T/s0"
for i in 1 2 3; do
    ok vpool volume create "tank/v$i" --size 64M
    ok vpool attach "tank/v$i" --nbd "unix:$T/n$i"
done
ok vpool attach tank/v1 --nbd tcp:127.0.0.1:0 --readonly
tcp=$out
head -c 20M /dev/urandom >"$T/data"
truncate -s 64M "$T/data"
ok nbdcopy --flush "$T/data" "$(uri tank/v1 "$T/n1")"

intact() {
    qemu-img compare -f raw -F raw "$T/data" "$(uri tank/v1 "$T/n1")" >/dev/null || fail "$1: the data differ"
    nbdinfo --is read-only "$tcp" || fail "$1: no read-only attachment at $tcp"
    same "$(field '[.attachments[]|select(.state=="serving")]|length' vpool attachments)" 4 "$1: attachments"
    same "$(field '[.pools[]|select(.state=="online")]|length' vpool list)" 2 "$1: pools"
}
step "SIGTERM ends with 0 and everything comes back"
daemon_stop
[ ! -e "$T/s" ] && [ ! -e "$T/n1" ] || fail "sockets are left after a clean stop"
daemon_start
intact SIGTERM

step "SIGTERM with clients that stay connected"
sleep 60 | nbdsh -u "$(uri tank/v2 "$T/n2")" -c 'import sys; h.pwrite(b"x" * 4096, 0); print("up", flush=True); sys.stdin.read()' >"$T/client" 2>&1 &
client=$!
until_ok 10 grep -q up "$T/client" || fail "no client: $(cat "$T/client")"
began=$SECONDS
daemon_stop
[ $((SECONDS - began)) -lt 10 ] || fail "the stop took $((SECONDS - began)) s"
kill $client 2>/dev/null
daemon_start
intact "SIGTERM with clients"

step "SIGTERM: a busy client is hung up on, and not told of a shutdown, which it might take for an error"
cat >"$T/busy.py" <<'EOP'
import time
errors = set()
def done(error):
    if error.value:
        errors.add(error.value)
    return 1
try:
    while True:
        while h.aio_in_flight() < 32:
            h.aio_pread(nbd.Buffer(65536), 0, done)
        h.poll(1000)
        print("up", flush=True)
except nbd.Error as e:
    print("ended:", e, flush=True)
assert 108 not in errors, errors
EOP
rm "$T/client"
nbd_py "$(uri tank/v2 "$T/n2")" "$T/busy.py" >"$T/client" 2>&1 &
client=$!
until_ok 10 grep -q up "$T/client" || fail "no client: $(cat "$T/client")"
daemon_stop
wait $client || fail "$(tail -3 "$T/client")"
daemon_start
intact "SIGTERM with a busy client"

step "SIGKILL: serving again within two seconds"
for i in 1 2 3 4 5; do
    daemon_kill
    began=$(date +%s%N)
    daemon_start
    nbdinfo --size "$(uri tank/v1 "$T/n1")" >/dev/null || fail "not serving"
    ms=$((($(date +%s%N) - began) / 1000000))
    [ -n "$slow" ] || [ $ms -lt 2000 ] || fail "restart $i took $ms ms"
    intact "SIGKILL $i"
done
say "  the last took $ms ms"

step "a second daemon is refused, whatever it shares"
refused "another vpoold \(pid $daemon_pid\)" vpoold -s "$T/other" --state-dir "$T/state" --foreground
refused 'listens' vpoold -s "$T/s" --state-dir "$T/state2" --foreground
vpoold -s "$T/s2" --state-dir "$T/state2" --foreground 2>>"$T/log2" &
second=$!
until_ok 10 env VPOOL_SOCKET="$T/s2" vpool list || fail "the second daemon does not answer"
refused 'in use|another daemon' env VPOOL_SOCKET="$T/s2" vpool import tank -d "$T"
refused '.' env VPOOL_SOCKET="$T/s2" vpool create stolen --force "$T/d0"
kill $second
wait $second || fail "the second daemon ended with $?"
intact "after a second daemon"

step "a pool whose disk is missing is listed with the reason; the others serve; it comes back"
daemon_stop
mv "$T/s0" "$T/away"
daemon_start
same "$(field '.pools[]|select(.name=="solo").state' vpool list)" unavailable "state"
ok vpool status solo
grep -q 'vpool import solo' <<<"$out" || fail "no hint: $out"
refused 'not open' vpool volume create solo/v --size 1M
intact_tank=$(field '[.attachments[]|select(.state=="serving")]|length' vpool attachments)
same "$intact_tank" 4 "attachments of the other pool"
mv "$T/away" "$T/s0"
ok vpool import solo -d "$T"
same "$(field '.pools[]|select(.name=="solo").state' vpool list)" online "state"

step "a mirror with one disk missing serves degraded"
daemon_stop
mv "$T/d1" "$T/away"
daemon_start
ok vpool status tank
grep -q 'pool tank: degraded' <<<"$out" || fail "not degraded: $out"
grep -q "warning.*disk 1 (last at $T/d1) is missing" <<<"$out" || fail "no warning: $out"
grep -q "($T/d1) *missing" <<<"$out" || fail "the disk has no name: $out"
qemu-img compare -f raw -F raw "$T/data" "$(uri tank/v1 "$T/n1")" >/dev/null || fail "the data differ"

step "an attachment whose place is taken says so, and can be tried again"
daemon_stop
mkdir "$T/n3"
daemon_start
same "$(field '.attachments[]|select(.volume=="tank/v3").state' vpool attachments)" failed "state"
ok vpool status tank
grep -q 'not served' <<<"$out" || fail "no warning: $out"
rmdir "$T/n3"
ok vpool attach tank/v3 --nbd "unix:$T/n3"
ok nbdinfo --size "$(uri tank/v3 "$T/n3")"
same "$(field '.attachments[]|select(.volume=="tank/v3").error' vpool attachments)" "" "error"

step "without the cache the pools are still there"
daemon_stop
echo '{ damaged' >"$T/state/pools.json"
daemon_start
ok vpool events
grep -q 'daemon.state-damaged' <<<"$out" || fail "no event: $out"
ok vpool import --all -d "$T"
same "$(field '[.attachments[]|select(.state=="serving")]|length' vpool attachments)" 4 "attachments"

step "SIGINT works too; background mode reports when it is ready"
kill -INT "$daemon_pid"
wait "$daemon_pid" || fail "SIGINT: $?"
daemon_pid=''
ok vpoold -s "$T/s" --state-dir "$T/state"
daemon_pid=$(cat "$T/state/vpoold.lock")
same "$(field '.pools|length' vpool list)" 2 "pools in the background daemon"
refused 'another vpoold' vpoold -s "$T/s" --state-dir "$T/state"
kill "$daemon_pid"
until_ok 10 test ! -e "/proc/$daemon_pid" || fail "the background daemon does not end"
daemon_pid=''
