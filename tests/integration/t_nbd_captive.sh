#!/usr/bin/env bash
# vpool-nbd: one volume without a daemon, by socket activation, stdin, a descriptor, a socket.
. "$(dirname "$0")/../lib/daemon.sh"
need nbdcopy nbdinfo nbdsh
ulimit -c 0
daemon_start
ok vpool create tank --size 256M --raid mirror:2 "$T/d0" "$T/d1"
ok vpool volume create tank/v --size 64M
step "a pool that a daemon has open is refused"
refused 'in use|daemon' vpool-nbd -d "$T" tank/v --unix "$T/x"
daemon_stop

step "nbdcopy starts it both ways (LISTEN_FDS)"
head -c 64M /dev/urandom >"$T/in"
ok nbdcopy --flush -- "$T/in" [ vpool-nbd -d "$T" tank/v ]
ok nbdcopy -- [ vpool-nbd -r --disk "$T/d0" --disk "$T/d1" tank/v ] "$T/out"
cmp "$T/in" "$T/out" || fail "not what was written"
ok nbdinfo --size -- [ vpool-nbd -d "$T" tank/v ]
same "$out" $((64 << 20)) size

step "libnbd talks to it on stdin"
cat >"$T/stdin.py" <<EOP
h.connect_command(["vpool-nbd", "-d", "$T", "--stdin", "tank/v"])
data = open("$T/in", "rb").read(65536)
assert h.pread(65536, 0) == data
h.pwrite(b"stdin", 4094)
h.flush()
h.shutdown()
EOP
ok nbdsh -c "$(cat "$T/stdin.py")"

step "and on an inherited descriptor"
cat >"$T/fd.py" <<EOP
import socket, subprocess
a, b = socket.socketpair()
p = subprocess.Popen(["vpool-nbd", "-d", "$T", "--fd", str(b.fileno()), "tank/v"], pass_fds=[b.fileno()])
b.close()
h.connect_socket(a.detach())
assert h.pread(5, 4094) == b"stdin"
h.shutdown()
assert p.wait(60) == 0
EOP
ok nbdsh -c "$(cat "$T/fd.py")"

step "a unix socket ends with its last client, and goes away"
vpool-nbd -d "$T" tank/v --unix "$T/u.sock" 2>"$T/log" &
server=$!
until_ok 10 test -S "$T/u.sock" || fail "no socket: $(cat "$T/log")"
ok nbdinfo "$(uri tank/v "$T/u.sock")"
wait "$server" || fail "it ended with $?: $(cat "$T/log")"
[ ! -e "$T/u.sock" ] || fail "the socket is still there"

step "SIGTERM ends it in order, also with a client"
vpool-nbd -d "$T" tank/v --unix "$T/u.sock" 2>"$T/log" &
server=$!
until_ok 10 test -S "$T/u.sock" || fail "no socket"
cat >"$T/hold.py" <<EOP
import time
h.pwrite(b"term", 0)
print("ready", flush=True)
try:
    while True:
        h.pread(512, 0)
        time.sleep(0.01)
except nbd.Error:
    pass
EOP
nbd_py "$(uri tank/v "$T/u.sock")" "$T/hold.py" >"$T/ready" 2>&1 &
client=$!
until_ok 10 grep -q ready "$T/ready" || fail "no client"
kill -TERM "$server"
wait "$server" || fail "it ended with $?"
wait "$client"

step "what was acknowledged is there for a daemon afterwards"
daemon_start
ok vpool attach tank/v --nbd "unix:$T/v.sock"
ok nbdsh -u "$(uri tank/v "$T/v.sock")" -c 'assert h.pread(4, 0) == b"term"; assert h.pread(5, 4094) == b"stdin"'
daemon_stop

step "wrong usage and missing things"
usage 'where the client is' vpool-nbd tank/v
usage 'POOL/VOL' vpool-nbd --stdin tank
usage 'descriptor' vpool-nbd --fd x tank/v
usage 'once' vpool-nbd --stdin --unix "$T/x" tank/v
usage 'LISTEN' vpool-nbd --listen-fds tank/v
refused 'not a stream socket' vpool-nbd --stdin tank/v
refused 'no volume|not' vpool-nbd -d "$T" tank/w --unix "$T/x"
refused 'no disk of a pool' vpool-nbd -d "$T" other/v --unix "$T/x"
say "$steps behaviours"
