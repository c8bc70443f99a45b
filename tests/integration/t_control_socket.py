#!/usr/bin/python3
# threads: yes
"""The control socket against clients that are wrong: garbage, floods, stalls; it goes on serving."""
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BIN = os.path.join(TOP, os.environ.get("VPOOL_BUILD", "build/release"))
SLOW = bool(os.environ.get("VPOOL_SLOW"))
DIR = tempfile.mkdtemp(prefix="vpool-test.")
SOCK = DIR + "/s"


def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect(SOCK)  # blocking: waits while the backlog is full
    s.settimeout(60 if SLOW else 15)
    return s


def exchange(frame, s=None):
    s = s or connect()
    s.sendall(frame)
    return json.loads(s.makefile("rb").readline())


def call(method, params=None, **more):
    return exchange(json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": params or {}, **more}).encode() + b"\n")


def error_of(frame):
    return exchange(frame)["error"]["code"]


def check(what, condition):
    if not condition:
        raise SystemExit(f"FAILED: {what}")
    print("-", what, flush=True)


def test_envelopes():
    check("not JSON is -32700", error_of(b"{nonsense\n") == -32700)
    check("not UTF-8 is -32700", error_of(b'{"a":"\xff"}\n') == -32700)
    check("duplicate keys are -32700", error_of(b'{"id":1,"id":2}\n') == -32700)
    check("a number is -32600", error_of(b"[]\n") == -32600 and error_of(b"{}\n") == -32600)
    check("a batch is refused", "batch" in exchange(b'[{"jsonrpc":"2.0","id":1,"method":"pool.list"}]\n')["error"]["message"])
    check("version 1 is refused", error_of(b'{"jsonrpc":"1.0","id":1,"method":"pool.list"}\n') == -32600)
    check("an id that is an object is refused", error_of(b'{"jsonrpc":"2.0","id":{},"method":"pool.list"}\n') == -32600)
    check("an unknown method is -32601", call("pool.frobnicate")["error"]["code"] == -32601)
    check("positional parameters are -32602", error_of(b'{"jsonrpc":"2.0","id":1,"method":"pool.list","params":[1]}\n') == -32602)
    check("the id comes back", call("pool.list")["id"] == 7)
    check("text ids come back", exchange(b'{"jsonrpc":"2.0","id":"x","method":"pool.list"}\n')["id"] == "x")
    check("deep nesting is refused", error_of(b"[" * 100000 + b"\n") == -32700)


def test_params():
    def bad(method, params, word):
        e = call(method, params)["error"]
        return e["code"] == -32602 and word in e["message"] and e["data"]["name"] == "RPC_PARAMS"
    check("a missing parameter is named", bad("pool.status", {}, "'pool'"))
    check("an unknown parameter is named", bad("pool.list", {"colour": 1}, "'colour'"))
    check("a wrong type is named", bad("pool.status", {"pool": 1}, "a string"))
    check("a negative number is refused", bad("volume.create", {"volume": "a/b", "size": -1}, "'size'"))
    check("a number out of bounds is refused", bad("events", {"wait_ms": 10**9}, "not between"))
    check("too long a string is refused", bad("pool.status", {"pool": "x" * 300}, "longer"))
    check("control characters are refused", bad("pool.status", {"pool": "a\nb"}, "control characters"))
    check("relative paths are refused", bad("pool.create", {"pool": "t", "disks": ["d0"]}, "absolute"))
    check("an empty list is refused", bad("pool.create", {"pool": "t", "disks": []}, "elements"))
    check("NUL in a string is refused", error_of(b'{"jsonrpc":"2.0","id":1,"method":"pool.status","params":{"pool":"a\\u0000b"}}\n') in (-32700, -32602))


def test_streams():
    s = connect()
    s.sendall(b'{"jsonrpc":"2.0","id":1,"method":"pool.list"}\n' * 50)
    lines = s.makefile("rb")
    check("fifty requests in one piece get fifty answers", all(b"result" in lines.readline() for _ in range(50)))
    s = connect()
    for c in b'{"jsonrpc":"2.0","id":1,"method":"pool.list"}\n':
        s.sendall(bytes([c]))
    check("a request in single bytes is answered", b"result" in s.makefile("rb").readline())
    s = connect()
    s.sendall(b"\n\n\n")
    check("empty lines are ignored", exchange(b'{"jsonrpc":"2.0","id":1,"method":"pool.list"}\n', s)["id"] == 1)
    s = connect()
    s.sendall(b'{"jsonrpc":"2.0","method":"pool.list"}\n')
    check("a notification gets no answer", exchange(b'{"jsonrpc":"2.0","id":2,"method":"pool.list"}\n', s)["id"] == 2)
    s = connect()
    try:
        s.sendall(b"x" * (3 << 20))
    except OSError:
        pass
    reply = s.makefile("rb").readline()
    check("a frame of more than 1 MiB is refused and the connection closed", b"1 MiB" in reply)
    s = connect()
    s.sendall(b'{"jsonrpc"')
    began = time.monotonic()
    reply = s.makefile("rb").readline()
    check("a frame that does not end in time is refused", b"in time" in reply and time.monotonic() - began < 30)


def hold(first_bytes, count=200):
    """So many connections that say this and are then silent; more than the daemon admits (64)."""
    held = []
    for _ in range(count):
        s = connect()
        s.settimeout(0)
        try:
            s.sendall(first_bytes)
        except OSError:
            pass  # cut already
        held.append(s)
    return held


def test_many():
    request = b'{"jsonrpc":"2.0","id":1,"method":"%s","params":{%s}}\n'
    waits = request % (b"events", b'"since":999999,"wait_ms":60000')
    for what, first_bytes in (("silent", b""), ("half a request", b'{"jsonrpc"'), ("waiting for events", waits),
                              ("silent after a request", request % (b"pool.list", b""))):
        held = hold(first_bytes)
        check(f"200 connections ({what}) keep no new one out", all("result" in call("pool.list") for _ in range(20)))
        for s in held:
            s.close()
    held = hold(request % (b"daemon.stats", b"") * 1500, 64)
    time.sleep(1.2)  # what has not taken its reply for a second makes room
    check("nor do 64 that take no replies", all("result" in call("pool.list") for _ in range(20)))
    busy = connect()
    lines = busy.makefile("rb")
    for s in held:
        s.close()
    held = []
    for _ in range(200):
        held += hold(b"", 1)
        busy.sendall(request % (b"pool.list", b""))
        check_quietly = lines.readline()
        if b"result" not in check_quietly:
            raise SystemExit("FAILED: a connection that works was cut for silent ones")
    check("a connection that works is not cut for silent ones", True)
    for s in held:
        s.close()
    for _ in range(200):
        s = connect()
        s.sendall(b'{"jsonrpc":"2.0","id":1,"method":"events","params":{"since":999999,"wait_ms":100}}\n')
        s.close()
    check("clients that vanish in the middle of a call do no harm", "result" in call("pool.list"))


def main():
    with open(DIR + "/conf", "w") as f:
        f.write("control: { frame-timeout-ms = 1000; };\n")
    log = open(DIR + "/log", "ab")
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(DIR + "/notify")
    notify.settimeout(60)
    os.environ["NOTIFY_SOCKET"] = DIR + "/notify"
    daemon = subprocess.Popen([BIN + "/vpoold", "-c", DIR + "/conf", "-s", SOCK, "--state-dir", DIR + "/state", "--foreground"], stderr=log)
    failed = True
    try:
        end = time.monotonic() + 30
        while True:
            try:
                call("pool.list")
                break
            except OSError:
                if time.monotonic() > end:
                    raise SystemExit("FAILED: the daemon does not answer")
                time.sleep(0.02)
        check("systemd is told when the daemon is ready", notify.recv(100) == b"READY=1")
        check("the socket has mode 0660", os.stat(SOCK).st_mode & 0o777 == 0o660)
        test_envelopes()
        test_params()
        test_streams()
        test_many()
        if os.geteuid() == 0:
            os.chmod(DIR, 0o755)
            os.chmod(SOCK, 0o666)
            other = subprocess.run([sys.executable, "-c", f"""
import os, socket
os.setgroups([]); os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX); s.connect({SOCK!r})
print(s.makefile('rb').readline().decode())"""], capture_output=True, text=True)
            check("a peer that is neither root nor in the group is refused", "may not use" in other.stdout)
            tool = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", BIN + "/vpool", "-s", SOCK, "list"],
                                  capture_output=True, text=True)
            check("and the tool tells why", tool.returncode == 1 and ("may not use" in tool.stderr or "Permission" in tool.stderr))
        waiting = connect()
        waiting.sendall(b'{"jsonrpc":"2.0","id":1,"method":"events","params":{"since":999,"wait_ms":60000}}\n')
        deaf = hold(b'{"jsonrpc":"2.0","id":1,"method":"daemon.stats"}\n' * 1500, 4)
        time.sleep(0.2)
        began = time.monotonic()
        daemon.terminate()
        check("SIGTERM ends with 0 although a client waits for events, and four take no replies",
              daemon.wait(60) == 0 and time.monotonic() - began < 20)
        for s in deaf:
            s.close()
        check("and when it stops", notify.recv(100) == b"STOPPING=1")
        failed = False
    finally:
        if daemon.poll() is None:
            daemon.kill()
            daemon.wait()
        text = open(DIR + "/log", errors="replace").read()
        if failed or "Sanitizer" in text:
            sys.stdout.write(text[-8000:])
        shutil.rmtree(DIR, ignore_errors=True)
    if "Sanitizer" in text:
        sys.exit(1)


main()
