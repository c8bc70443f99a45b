#!/usr/bin/env bash
# 1,500 volumes, 300 of them attached: create, list, show, attach and restart stay fast.
. "$(dirname "$0")/../lib/daemon.sh"
need jq nbdinfo python3
volumes=1500 attached=300
[ -z "$slow" ] || { volumes=200 attached=40; }
ulimit -n 8192 2>/dev/null || ulimit -n "$(ulimit -Hn)"
daemon_start
ok vpool create tank --raid mirror:2 --size 1G "$T/d0" "$T/d1"

# Calls in one connection, so that the daemon is what is measured.
cat >"$T/calls.py" <<'EOP'
import json, os, socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.connect(os.environ["VPOOL_SOCKET"])
f = s.makefile("rwb")
worst, began, n = 0, time.monotonic(), 0
for line in sys.stdin:
    t = time.monotonic()
    method, params = line.split(" ", 1)
    f.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": json.loads(params)}).encode() + b"\n")
    f.flush()
    reply = json.loads(f.readline())
    assert "result" in reply, (line, reply)
    worst, n = max(worst, time.monotonic() - t), n + 1
print(f"{n} calls in {time.monotonic() - began:.2f} s, worst {worst * 1000:.1f} ms")
print(int((time.monotonic() - began) * 1000 / n * 1000), file=open(sys.argv[1], "w"))
EOP
calls() { python3 "$T/calls.py" "$T/mean_us" || fail "calls"; }
mean_ms() { # WHAT LIMIT
    [ -n "$slow" ] || [ "$(cat "$T/mean_us")" -lt $(($2 * 1000)) ] || fail "$1 takes $(cat "$T/mean_us") µs on average"
}
step "create $volumes volumes"
for i in $(seq $volumes); do echo "volume.create {\"volume\":\"tank/v$i\",\"size\":1073741824}"; done | calls
mean_ms "creating a volume" 20

step "list: all of them, sorted by name, over several pages"
began=$(date +%s%N)
vpool volume list tank --json >"$T/list" || fail "list"
ms=$((($(date +%s%N) - began) / 1000000))
say "  $ms ms"
same "$(jq '.volumes|length' "$T/list")" $volumes "listed"
jq -r '.volumes[].name' "$T/list" >"$T/names"
LC_ALL=C sort -c "$T/names" || fail "not sorted"
[ -n "$slow" ] || [ $ms -lt 1000 ] || fail "list takes $ms ms"

step "attach $attached: less than 10 ms each"
for i in $(seq $attached); do echo "attach {\"volume\":\"tank/v$i\",\"nbd\":\"unix:$T/n$i\"}"; done | calls
mean_ms "attaching" 10

step "restart after SIGKILL with all of them: less than two seconds"
daemon_kill
began=$(date +%s%N)
daemon_start
ms=$((($(date +%s%N) - began) / 1000000))
say "  $ms ms"
[ -n "$slow" ] || [ $ms -lt 2000 ] || fail "the restart took $ms ms"
same "$(field '[.attachments[]|select(.state=="serving")]|length' vpool attachments)" $attached "attachments"
ok nbdinfo --size "$(uri "tank/v$attached" "$T/n$attached")"

step "a clean stop and a start"
began=$(date +%s%N)
daemon_stop
ms=$((($(date +%s%N) - began) / 1000000))
say "  stop $ms ms"
[ -n "$slow" ] || [ $ms -lt 5000 ] || fail "the stop took $ms ms"
daemon_start

step "detach and delete all"
for i in $(seq $attached); do echo "detach {\"volume\":\"tank/v$i\"}"; done | calls
for i in $(seq $volumes); do echo "volume.delete {\"volume\":\"tank/v$i\"}"; done | calls
same "$(field '.volumes|length' vpool volume list tank)" 0 "volumes left"
daemon_stop
