#!/usr/bin/python3
"""A volume is to move to something that is no daemon of vpool, or one that lies. This test plays that side: whatever it
says, the move is refused with a sentence, the volume is served on, and the daemon goes on."""
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid

sys.dont_write_bytecode = True
from t_sigkill import BIN, SLOW, Daemon, nbd  # noqa: E402

POOL = str(uuid.uuid4())
HELLO = {"version": 1, "host": "far", "capabilities": ["live", "mirror", "offline"]}
MADE = {"pool": POOL, "volume": "silo/v", "secret": "0" * 32, "life": str(uuid.uuid4())}


class Far(threading.Thread):
    """Answers each method as `answers` says: a result, bytes, or a function of the socket; what is not there closes."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen(16)
        self.answers = {}

    def run(self):
        while True:
            s, _ = self.server.accept()
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def serve(self, s):
        received = b""
        try:
            while True:
                while b"\n" not in received:
                    got = s.recv(1 << 16)
                    if not got:
                        return
                    received += got
                line, received = received.split(b"\n", 1)
                request = json.loads(line)
                answer = self.answers.get(request["method"])
                if answer is None:
                    return
                if isinstance(answer, dict):
                    answer = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": answer}).encode() + b"\n"
                if callable(answer):
                    answer(s, request["id"])
                    return
                s.sendall(answer)
        except OSError:
            pass
        finally:
            s.close()


def reply(request, result):
    return json.dumps({"jsonrpc": "2.0", "id": request, "result": result}).encode() + b"\n"


def flushes(s):
    """Answers requests, as long as they have no data."""
    request = s.recv(28, socket.MSG_WAITALL)
    while len(request) == 28 and request[6:8] == (3).to_bytes(2, "big"):
        s.sendall((0x67446698).to_bytes(4, "big") + (0).to_bytes(4, "big") + request[8:16])
        request = s.recv(28, socket.MSG_WAITALL)


def nbd_of(size, flags=0x16D):
    """As an NBD server that has an export of so many bytes; fixed newstyle."""
    def serve(s, request):
        s.sendall(reply(request, {}) + b"NBDMAGIC" + b"IHAVEOPT" + (3).to_bytes(2, "big"))
        received = s.recv(4)
        while len(received) == 4:
            head = s.recv(16, socket.MSG_WAITALL)
            option, length = int.from_bytes(head[8:12], "big"), int.from_bytes(head[12:16], "big")
            s.recv(length, socket.MSG_WAITALL)
            magic = (0x3E889045565A9).to_bytes(8, "big") + option.to_bytes(4, "big")
            if option == 7:  # GO: the size, and FLUSH, FUA, TRIM, WRITE_ZEROES, CAN_MULTI_CONN
                info = (0).to_bytes(2, "big") + size.to_bytes(8, "big") + flags.to_bytes(2, "big")
                s.sendall(magic + (3).to_bytes(4, "big") + len(info).to_bytes(4, "big") + info)
                s.sendall(magic + (1).to_bytes(4, "big") + (0).to_bytes(4, "big"))
                flushes(s)
                return
            s.sendall(magic + (0x80000001).to_bytes(4, "big") + (0).to_bytes(4, "big"))
    return serve


def cases():
    good = {"peer.hello": HELLO, "peer.make": MADE, "peer.session": {"generation": 1}, "peer.decline": {}}
    texts = {
        "garbage": b"\x00\xff\xfe garbage\n",
        "an HTTP server": b"HTTP/1.1 400 Bad Request\r\n\r\n",
        "text that nests deeply": b"[" * 30000 + b"]" * 30000 + b"\n",
        "objects that nest deeply": b'{"a":' * 10000 + b"1" + b"}" * 10000 + b"\n",
        "a line without an end": b"x" * (1 << 20),
        "another id": reply(77, HELLO),
        "no object": reply(1, [1, 2]),
        "an error without a name": b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":7}}\n',
        "an error with escapes": b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no \\u001b[2J\\n\\u009b"}}\n',
        "an error with a NUL": b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"\\u0000"}}\n',
    }
    for name, text in texts.items():
        yield name, {"peer.hello": text}
    yield "nothing, and closes", {}
    yield "a pool that is no uuid", {**good, "peer.make": {**MADE, "pool": "silo"}}
    yield "no secret", {**good, "peer.make": {k: v for k, v in MADE.items() if k != "secret"}}
    yield "a long secret", {**good, "peer.make": {**MADE, "secret": "0" * 5000}}
    yield "a number for a secret", {**good, "peer.make": {**MADE, "secret": 5}}
    yield "no session", {k: v for k, v in good.items() if k != "peer.session"}
    yield "a session without a number", {**good, "peer.session": {}}
    yield "no data connection", good
    yield "a data connection that is none", {**good, "peer.data": lambda s, i: s.sendall(reply(i, {}) + b"\xff" * 4096)}
    yield "a data connection that closes", {**good, "peer.data": lambda s, i: s.sendall(reply(i, {}))}
    yield "a volume of another size", {**good, "peer.data": nbd_of(1 << 20)}
    yield "a flush of one connection only", {**good, "peer.data": nbd_of(64 << 20, 0x6D)}


def stops(daemon, far, directory):
    """The daemon is told to stop while the other one does not answer that it knows of the source's end."""
    asked = threading.Event()

    def hang(s, _request):
        asked.set()
        s.recv(1)

    far.answers = {"peer.hello": HELLO, "peer.make": MADE, "peer.session": {"generation": 1}, "peer.keep": {},
                   "peer.data": nbd_of(64 << 20), "peer.arrive": {"verdict": "arrived"}, "peer.confirm": hang}
    daemon.vpool("volume", "create", "tank/empty", "--size", "64M")
    daemon.vpool("migrate", "tank/empty", "--to", "silo", "--peer", f"unix:{directory}/far")
    if not asked.wait(60):
        raise SystemExit(f"FAILED: no peer.confirm: {daemon.vpool('migrate', 'status')}")
    daemon.process.terminate()
    since = time.monotonic()
    if daemon.process.wait(90) != 0:
        raise SystemExit(f"FAILED: the daemon ended with {daemon.process.returncode}")
    seconds = time.monotonic() - since
    if seconds > (60 if SLOW else 20):  # one question takes 10 s at most, and five would take 54
        raise SystemExit(f"FAILED: the daemon took {seconds:.0f} s to stop")


def says_more(daemon, far, directory):
    """Each answer comes twice, at once: the first one counts, also of those that decide."""
    def twice(result):
        def answer(s, request):
            s.sendall(2 * reply(request, result))
            s.recv(1)
        return answer

    confirmed = threading.Event()

    def confirm(s, request):
        s.sendall(2 * reply(request, {}))
        confirmed.set()

    far.answers = {"peer.hello": HELLO, "peer.make": twice(MADE), "peer.session": twice({"generation": 1}),
                   "peer.keep": twice({}), "peer.data": nbd_of(64 << 20), "peer.arrive": twice({"verdict": "arrived"}),
                   "peer.confirm": confirm}
    daemon.vpool("volume", "create", "tank/twice", "--size", "64M")
    daemon.vpool("migrate", "tank/twice", "--to", "silo", "--peer", f"unix:{directory}/far", "--wait")
    status = json.loads(daemon.vpool("--json", "migrate", "status"))
    if not confirmed.is_set() or status["in_doubt"] or "twice" in daemon.vpool("volume", "list"):
        raise SystemExit(f"FAILED: answers that come twice: {status}")
    print("- answers that come twice")


def run(daemon, far, directory):
    far.start()
    daemon.start()
    daemon.wait_ready()
    daemon.vpool("create", "tank", "--size", "1G", directory + "/disk")
    daemon.vpool("volume", "create", "tank/v", "--size", "64M")
    uri = daemon.vpool("attach", "tank/v", "--nbd", f"unix:{directory}/n").strip()
    h = nbd.NBD()
    h.connect_uri(uri)
    for name, answers in cases():
        far.answers = answers
        r = subprocess.run([BIN + "/vpool", "-s", daemon.socket, "migrate", "tank/v", "--to", "silo", "--peer",
                            f"unix:{directory}/far"], capture_output=True, text=True, timeout=120 if SLOW else 60)
        if r.returncode == 0 or f"unix:{directory}/far: " not in r.stderr:
            raise SystemExit(f"FAILED: {name}: {r.returncode} {r.stdout}{r.stderr}")
        if any(ord(ch) < 32 and ch != "\n" for ch in r.stderr):
            raise SystemExit(f"FAILED: {name}: {r.stderr!r}")
        h.pwrite(b"w" * 4096, 0, nbd.CMD_FLAG_FUA)
        volumes = json.loads(daemon.vpool("--json", "volume", "list"))["volumes"]
        status = json.loads(daemon.vpool("--json", "migrate", "status"))
        if [v["state"] for v in volumes] != ["online"] or status["in_doubt"] or \
                any(not m["ended"] for m in status["migrations"]):
            raise SystemExit(f"FAILED: {name}: {volumes} {status}")
        print(f"- {name}: {r.stderr.strip().split('far: ', 1)[1]}", flush=True)
    daemon.vpool("volume", "resize", "tank/v", "--size", "65M")  # nothing keeps it from changes
    for address in ("unix:/a path/x", "nowhere", "tcp:host"):
        r = subprocess.run([BIN + "/vpool", "-s", daemon.socket, "migrate", "tank/v", "--to", "silo", "--peer", address],
                           capture_output=True, text=True)
        if r.returncode == 0 or not r.stderr:
            raise SystemExit(f"FAILED: {address}: {r.stdout}{r.stderr}")
    h.shutdown()
    says_more(daemon, far, directory)
    stops(daemon, far, directory)


def main():
    directory = tempfile.mkdtemp(prefix="vpool-test.")
    daemon = Daemon(directory)
    failed = True
    try:
        run(daemon, Far(os.path.join(directory, "far")), directory)
        failed = False
    finally:
        daemon.end(failed)


if __name__ == "__main__":
    main()
