#!/usr/bin/python3
# threads: yes
"""A volume comes from another daemon. This test plays that daemon, a good one and odd ones: it says the protocol itself
(docs/peer.md), and sends the data with libnbd."""
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid

sys.dont_write_bytecode = True
from t_sigkill import BIN, SLOW, Daemon, nbd  # noqa: E402

MIB = 1 << 20
SIZE = 64 * MIB
WAIT = 60 if SLOW else 20


def check(what, condition):
    if not condition:
        raise SystemExit(f"FAILED: {what}")
    print("-", what, flush=True)


class Refused(Exception):
    def __init__(self, error):
        super().__init__(error["message"])
        self.name, self.code = error["data"]["name"], error["code"]


class Wire:
    """A connection to migrate.listen."""

    def __init__(self, address, hello=True):
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address[5:])
        else:
            _, host, port = address.split(":")
            self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(WAIT)
        self.received = b""
        if hello:
            self.call("peer.hello", version=1, host="far.example")

    def send(self, method, **params):
        self.socket.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")

    def answer(self):
        while b"\n" not in self.received:
            got = self.socket.recv(1)  # and no more: after peer.data, what follows is NBD's
            if not got:
                raise EOFError
            self.received += got
        line, self.received = self.received.split(b"\n", 1)
        reply = json.loads(line)
        if "error" in reply:
            raise Refused(reply["error"])
        return reply["result"]

    def call(self, method, **params):
        self.send(method, **params)
        return self.answer()

    def close(self):
        self.socket.close()


class Here(Daemon):
    """The daemon to which volumes come."""

    def __init__(self, directory, listen):
        super().__init__(directory, 'migrate: { listen = "%s"; max-connections = 8; };\n' % listen +
                         "control: { frame-timeout-ms = 1000; };\n")
        self.listen = listen

    def restart(self, how):
        before = self.process
        if how == "kill":
            self.kill()
        elif how == "stop":
            before.terminate()
            check("the daemon ends", before.wait(WAIT) == 0)
        self.start(*["--takeover"] if how == "takeover" else [])
        if how == "takeover":
            check("the daemon makes way", before.wait(WAIT) == 0)
        self.wait_ready()

    def json(self, *args):
        return json.loads(self.vpool("--json", *args))

    def refuses(self, *args):
        r = subprocess.run([BIN + "/vpool", "-s", self.socket, *args], capture_output=True, text=True)
        return r.stderr if r.returncode else ""

    def volumes(self):
        return {v["name"]: v for v in self.json("volume", "list")["volumes"]}

    def move(self, m):
        return [x for x in self.json("migrate", "status")["migrations"] if x["id"] == m.id][0]

    def connect(self, hello=True):
        address = self.listen
        if address.endswith(":0"):
            address = self.json("info")["migrate_listen"]
        return Wire(address, hello)

    def has_event(self, kind, volume):
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            if any(e["kind"] == kind and e["subject"] == volume for e in self.json("events")["events"]):
                return True
            time.sleep(0.05)
        return False


class Move:
    """A move, from the source's side."""

    def __init__(self, name="vm", **more):
        self.id, self.volume, self.pool, self.epoch = str(uuid.uuid4()), str(uuid.uuid4()), str(uuid.uuid4()), 3
        self.offer = {"to": "tank", "id": self.id, "pool": self.pool, "volume": "far/" + name, "epoch": self.epoch,
                      "identity": {"uuid": self.volume, "created_seconds": 1700000000},
                      "options": {"size_bytes": SIZE, "sector_bytes": 512, "profile": "single", "full_policy": "pause",
                                  "zero_detect": False, "sync": False, "read_only": False, "reserve_bytes": 0},
                      "allocated_bytes": 2 * MIB, **more}

    def make(self, wire):
        self.made = wire.call("peer.make", **self.offer)
        self.key = {"id": self.id, "secret": self.made["secret"]}
        self.claim = {"id": self.id, "pool": self.made["pool"], "volume": self.volume, "epoch": self.epoch}
        return self

    def session(self, wire):
        self.generation = wire.call("peer.session", **self.key)["generation"]
        return self.generation

    def data(self, here, **more):
        """A data connection: libnbd's, on the socket of a peer.data call."""
        wire = here.connect()
        wire.call("peer.data", **{**self.key, "generation": self.generation, **more})
        handle = nbd.NBD()
        handle.connect_socket(wire.socket.detach())
        return handle

    def ask(self, wire, method):
        return wire.call("peer." + method, claim=self.claim)


def refused(what, name, fn, *args, **kwargs):
    try:
        fn(*args, **kwargs)
    except Refused as e:
        check(f"{what}: {e}", e.name == name)
        return
    check(what, False)


def is_cut(handle):
    try:
        handle.pwrite(b"x" * 4096, 0)
    except nbd.Error:
        return True
    return False


def contents(here, volume):
    sock = here.dir + "/nbd"
    here.vpool("attach", volume, "--nbd", f"unix:{sock}")
    h = nbd.NBD()
    h.connect_uri(f"nbd+unix:///{volume}?socket={sock}")
    head, tail = h.pread(2 * MIB, 0), h.pread(MIB, SIZE - MIB)
    h.shutdown()
    here.vpool("detach", volume)
    return head, tail


# ---- a good source --------------------------------------------------------------------------------------------------


def test_arrives(here):
    wire = here.connect()
    m = Move("vm").make(wire)
    check("it is shown as a move that comes", here.move(m)["incoming"] and here.move(m)["phase"] == "receiving"
          and here.move(m)["peer"] == "far.example" and here.move(m)["to"] == "tank/vm")
    check("and in text", "far.example:far/vm" in here.vpool("migrate", "status"))
    check("it is no block device yet", "has not arrived yet" in here.refuses("attach", "tank/vm", "--ublk"))
    check("and it is said how that is ended", "`vpool migrate cancel tank/vm`" in here.refuses("volume", "delete", "tank/vm"))
    m.session(wire)
    first, second = m.data(here), m.data(here)
    check("the target is as large as the source", first.get_size() == SIZE)
    block = bytes(range(256)) * 16
    first.pwrite(block * 256, 0)
    second.zero(MIB, MIB)
    first.pwrite(block * 16, SIZE - MIB)
    second.flush()
    wire.call("peer.keep", **m.key)
    check("its pool is neither exported nor destroyed", "comes from far/vm" in here.refuses("export", "tank")
          and "comes from far/vm" in here.refuses("destroy", "tank"))
    check("it arrives", m.ask(wire, "arrive") == {"verdict": "arrived", "why": ""})
    check("then its connections are cut", is_cut(first) and is_cut(second))
    check("told again, it has arrived", m.ask(wire, "arrive")["verdict"] == "arrived")
    check("and who asks is told so", m.ask(wire, "decide")["verdict"] == "arrived")
    refused("it is not declined any more", "BUSY", m.ask, wire, "decline")
    check("it is served, but not deleted, before the source is gone", "has arrived from far/vm of far.example" in here.refuses("volume", "delete", "tank/vm"))
    head, tail = contents(here, "tank/vm")
    check("all data are there", head == block * 256 + bytes(MIB) and tail[:65536] == block * 16 and not any(tail[65536:]))
    m.ask(wire, "confirm")
    m.ask(wire, "confirm")
    check("the move is remembered", here.move(m)["phase"] == "done" and here.has_event("migration.arrived", "tank/vm"))
    v = here.volumes()["vm"]
    check("it has its identity", v["uuid"] == m.volume and v["size_bytes"] == SIZE and v["state"] == "online")
    here.vpool("volume", "delete", "tank/vm")
    check("what has arrived and was deleted has arrived nowhere", m.ask(wire, "decide")["verdict"] == "not-arrived")
    wire.close()


def test_declined(here):
    wire = here.connect()
    m = Move().make(wire)
    m.session(wire)
    h = m.data(here)
    h.pwrite(b"y" * 4096, 0)
    m.ask(wire, "decline")
    check("declined, it is gone, and so is its session", "vm" not in here.volumes() and is_cut(h))
    check("told to arrive, it does not", m.ask(wire, "arrive")["verdict"] == "not-arrived")
    m.ask(wire, "decline")
    refused("it has no session", "NOT_FOUND", m.session, wire)
    m = Move().make(wire)
    m.session(wire)
    check("asked while it comes, it is declined", m.ask(wire, "decide")["verdict"] == "not-arrived" and "vm" not in here.volumes())
    m = Move().make(wire)
    check("cancelled here, it is gone", "cancelled" in here.vpool("migrate", "cancel", "tank/vm") and "vm" not in here.volumes()
          and here.move(m)["phase"] == "cancelled")
    check("and the source is told", m.ask(wire, "arrive")["verdict"] == "not-arrived")
    wire.close()


# ---- clients that are there before the volume ------------------------------------------------------------------------


def gets_eperm(fn, *args):
    """At once, with EPERM."""
    try:
        fn(*args)
    except nbd.Error as e:
        return e.errno == "EPERM"
    return False


def attach(here):
    sock = here.dir + "/early"
    here.vpool("attach", "tank/vm", "--nbd", f"unix:{sock}")
    h = nbd.NBD()
    h.connect_uri(f"nbd+unix:///tank/vm?socket={sock}")
    return h, sock


def attachments(here):
    return [(a["volume"], a["state"]) for a in here.json("attachments")["attachments"]]


class Qemu:
    """A machine that waits for its state (-incoming), with the volume for a disk."""

    def __init__(self, here, sock):
        path = here.dir + "/qmp"
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-machine", "q35,accel=tcg", "-m", "64", "-nodefaults", "-display", "none", "-incoming", "defer",
             "-qmp", f"unix:{path},server=on,wait=off", "-drive", f"if=virtio,format=raw,cache=none,file=nbd+unix:///tank/vm?socket={sock}"])
        end = time.monotonic() + WAIT
        while True:
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(path)
                break
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise SystemExit("FAILED: qemu does not start")
                time.sleep(0.05)
        self.socket.settimeout(WAIT)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self.call("qmp_capabilities")

    def call(self, command):
        self.file.write(json.dumps({"execute": command}) + "\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "event" not in answer:
                return answer["return"]

    def quit(self):
        self.call("quit")
        return self.process.wait(WAIT) == 0


def test_early_clients(here):
    wire = here.connect()
    m = Move("vm").make(wire)
    h, sock = attach(here)
    check("a client connects before the volume has arrived", h.get_size() == SIZE and not h.is_read_only()
          and attachments(here) == [("tank/vm", "waiting")])
    check("its flush succeeds", h.flush() is None)
    check("the rest is refused", gets_eperm(h.pread, 512, 0) and gets_eperm(h.pwrite, b"x" * 512, 0)
          and gets_eperm(h.trim, MIB, 0) and gets_eperm(h.zero, MIB, 0))
    vm = Qemu(here, sock)
    check("a machine that waits for its state starts", vm.call("query-status")["status"] == "inmigrate")
    m.session(wire)
    data = m.data(here)
    data.pwrite(b"d" * 4096, 0)
    check("what the source sends is not theirs yet", data.pread(4096, 0) == b"d" * 4096 and gets_eperm(h.pread, 4096, 0))
    check("it arrives", m.ask(wire, "arrive")["verdict"] == "arrived")
    check("the same connection serves", h.pread(4096, 0) == b"d" * 4096 and attachments(here) == [("tank/vm", "serving")])
    h.pwrite(b"e" * 4096, 4096)
    h.flush()
    check("the machine has it, too", vm.quit())
    out = subprocess.run(["qemu-io", "-r", "-f", "raw", "-c", "read -P 0x65 4096 4096", f"nbd+unix:///tank/vm?socket={sock}"],
                         capture_output=True, text=True)
    check("and so have others", out.returncode == 0 and "verification failed" not in out.stdout)
    m.ask(wire, "confirm")
    h.shutdown()
    here.restart("kill")
    check("its export is remembered since the arrival", attachments(here) == [("tank/vm", "serving")])
    here.vpool("detach", "tank/vm")
    here.vpool("volume", "delete", "tank/vm")
    wire.close()


def test_early_clients_of_nothing(here):
    for how in ("decline", "cancel", "decide", "kill", "stop"):
        wire = here.connect()
        m = Move("vm").make(wire)
        m.session(wire)
        h, _ = attach(here)
        if how in ("decline", "decide"):
            m.ask(wire, how)
        elif how == "cancel":
            here.vpool("migrate", "cancel", "tank/vm")
        else:
            here.restart(how)
        check(f"{how}: the export ends with the volume", is_cut(h) and attachments(here) == [] and "vm" not in here.volumes()
              and not (how != "kill" and os.path.exists(here.dir + "/early")))
        wire.close()
    wire = here.connect()
    m = Move("vm").make(wire)
    h, _ = attach(here)
    h.shutdown()
    here.vpool("detach", "tank/vm")
    check("it is detached like others", attachments(here) == [])
    attach(here)[0].shutdown()
    m.session(wire)
    check("and attached again", m.ask(wire, "arrive")["verdict"] == "arrived")
    m.ask(wire, "confirm")
    here.vpool("detach", "tank/vm")
    here.vpool("volume", "delete", "tank/vm")
    wire.close()


# ---- odd ones -------------------------------------------------------------------------------------------------------


def test_hello(here):
    wire = here.connect(hello=False)
    refused("peer.hello comes first", "RPC_PROTOCOL", wire.call, "peer.keep", id=str(uuid.uuid4()), secret="0" * 32)
    refused("another version is refused", "NOT_SUPPORTED", wire.call, "peer.hello", version=2, host="far")
    refused("a name is a name", "RPC_PARAMS", wire.call, "peer.hello", version=1, host="a b")
    refused("methods of the control socket are not here", "RPC_METHOD", wire.call, "pool.list")
    r = wire.call("peer.hello", version=1, host="far")
    check("it tells what it can do", r["version"] == 1 and r["host"] and set(r["capabilities"]) == {"live", "mirror", "offline"})
    wire.close()


def test_offers(here):
    wire = here.connect()
    here.vpool("volume", "create", "tank/taken", "--size", "1G")
    taken = here.volumes()["taken"]["uuid"]

    def make(name="vm", **more):
        Move(name, **more).make(wire)

    def options(**more):
        return {"options": {**Move().offer["options"], **more}}

    refused("a name that is taken", "EXISTS", make, "taken")
    refused("a uuid that is taken", "EXISTS", make, identity={"uuid": taken, "created_seconds": 1})
    refused("no such pool", "NOT_FOUND", make, to="silo")
    refused("no room", "NO_SPACE", make, allocated_bytes=1 << 40)
    refused("not enough disks", "NO_SPACE", make, **options(profile="mirror:4"))
    refused("an odd size", "INVALID", make, **options(size_bytes=513))
    refused("an odd sector", "INVALID", make, **options(sector_bytes=1000))
    refused("an odd policy", "RPC_PARAMS", make, **options(full_policy="burn"))
    refused("an odd profile", "RPC_PARAMS", make, **options(profile="raid7"))
    refused("an unknown option", "RPC_PARAMS", make, **options(colour="red"))
    refused("an odd name of the source", "RPC_PARAMS", make, volume="far")
    refused("another odd name of the source", "RPC_PARAMS", make, volume="far/v\u00fcm")
    refused("an odd target", "NAME_INVALID", make, to="tank/-x")
    refused("no id", "RPC_PARAMS", make, id="x")
    refused("the id of nothing", "RPC_PARAMS", make, id="00000000-0000-0000-0000-000000000000")
    refused("no epoch", "RPC_PARAMS", make, epoch=0)
    refused("no identity", "RPC_PARAMS", make, identity=None)
    check("nothing of all that is left", set(here.volumes()) == {"taken"})
    m = Move("a").make(wire)
    refused("the same move twice", "EXISTS", Move("b", id=m.id).make, wire)
    refused("the same volume twice", "EXISTS", Move("b", identity=m.offer["identity"]).make, wire)
    refused("the same name twice", "EXISTS", Move("a").make, wire)
    m.ask(wire, "decline")
    here.vpool("volume", "delete", "tank/taken")
    wire.close()


def test_secrets(here):
    wire = here.connect()
    m = Move().make(wire)
    m.session(wire)
    wrong = {"id": m.id, "secret": "0" * 32}
    refused("another secret has no session", "PERMISSION", wire.call, "peer.session", **wrong)
    refused("and no data", "PERMISSION", wire.call, "peer.data", generation=m.generation, **wrong)
    refused("and keeps nothing", "PERMISSION", wire.call, "peer.keep", **wrong)
    refused("nor does a short one", "PERMISSION", wire.call, "peer.keep", id=m.id, secret="")
    refused("another move is not known", "NOT_FOUND", wire.call, "peer.keep", id=str(uuid.uuid4()), secret=m.key["secret"])
    for field in ("pool", "volume"):
        refused(f"a claim about another {field}", "INVALID", wire.call, "peer.arrive", claim={**m.claim, field: str(uuid.uuid4())})
    refused("a claim of another epoch", "INVALID", wire.call, "peer.arrive", claim={**m.claim, "epoch": 9})
    unknown = {**m.claim, "id": str(uuid.uuid4()), "pool": str(uuid.uuid4())}
    refused("what a pool says that is not here is not known", "AGAIN", wire.call, "peer.decide", claim=unknown)
    refused("nor is it confirmed", "AGAIN", wire.call, "peer.confirm", claim=unknown)
    check("another move of the volume has not arrived, and this one stays",
          wire.call("peer.decide", claim={**m.claim, "id": str(uuid.uuid4())})["verdict"] == "not-arrived" and "vm" in here.volumes())
    m.ask(wire, "decline")
    wire.close()


def test_sessions(here):
    wire = here.connect()
    m = Move().make(wire)
    refused("no session, no data", "INVALID", wire.call, "peer.data", generation=1, **m.key)
    check("the first session", m.session(wire) == 1)
    old = m.data(here)
    old.pwrite(b"a" * 4096, 0)
    lost = writes_until_cut(old, lambda: m.session(wire))
    while not lost and m.generation < 20:  # all had been answered when it ended
        old = m.data(here)
        lost = writes_until_cut(old, lambda: m.session(wire))
    check("a session in the middle of writes ends", lost > 0 and m.generation >= 2)
    refused("its number is of no use any more", "INVALID", wire.call, "peer.data", generation=1, **m.key)
    refused("nor is one that is to come", "INVALID", wire.call, "peer.data", generation=m.generation + 1, **m.key)
    h = m.data(here)
    h.pwrite(b"b" * 4096, 0)
    check("in a new one it goes on", h.pread(4096, 0) == b"b" * 4096)
    many = [m.data(here) for _ in range(15)]
    wires = [here.connect() for _ in range(3)]
    check("connections for data take no places of others", all(w.call("peer.keep", **m.key) == {} for w in wires) and len(many) == 15)
    check("the 17th connection for data is hung up on", is_refused(lambda: m.data(here)))
    early = here.connect()
    early.socket.sendall((json.dumps({"jsonrpc": "2.0", "id": 1, "method": "peer.data", "params": {**m.key, "generation": m.generation}})
                          + "\nNBD").encode())
    check("who does not wait for the reply of peer.data is hung up on", early.answer() == {} and is_at_end(early))
    quiet = here.connect()
    quiet.socket.sendall(json.dumps({"jsonrpc": "2.0", "method": "peer.data", "params": {**m.key, "generation": m.generation}}).encode() + b"\n")
    check("and who wants no reply", is_at_end(quiet))
    check("it arrives with a session that is alive", m.ask(wire, "arrive")["verdict"] == "arrived" and is_cut(h))
    m.ask(wire, "confirm")
    check("what the last session wrote is there", contents(here, "tank/vm")[0][:4096] == b"b" * 4096)
    here.vpool("volume", "delete", "tank/vm")
    wire.close()


def is_refused(connect):
    try:
        connect()
    except nbd.Error:
        return True
    return False


def is_at_end(wire):
    try:
        return wire.socket.recv(1) == b""
    except ConnectionResetError:
        return True


def writes_until_cut(handle, cut):
    """How many of the writes under way at the cut were not answered with success."""
    buffers = [nbd.Buffer.from_bytearray(bytearray(b"a" * MIB)) for _ in range(32)]
    cookies = [handle.aio_pwrite(b, i * MIB) for i, b in enumerate(buffers)]
    for _ in range(20):
        handle.poll(0)
    cut()
    lost = 0
    for cookie in cookies:
        try:
            while not handle.aio_command_completed(cookie):
                handle.poll(-1)
        except nbd.Error:
            lost += 1
    return lost


def test_streams(here):
    wire = here.connect(hello=False)
    wire.socket.sendall(b"\x00\xff garbage\n")
    refused("garbage is refused", "RPC_PROTOCOL", wire.answer)
    wire.socket.sendall(b'{"jsonrpc":"2.0","id":1,"method":"peer.hello","params":' + b"[" * 40 + b"]" * 40 + b"}\n")
    refused("so is what is deep", "RPC_PROTOCOL", wire.answer)
    wire.socket.sendall(b'{"half')
    refused("and what does not end in time", "TIMED_OUT", wire.answer)
    check("then it is hung up on", is_at_end(wire))
    wires = [here.connect(hello=False) for _ in range(30)]
    wires[-1].call("peer.hello", version=1, host="far")
    check("silent ones keep nobody out", True)
    check("and take no places of the control socket", here.json("list")["pools"][0]["name"] == "tank")
    for w in wires:
        w.close()


# ---- the daemon, killed and started ---------------------------------------------------------------------------------


def test_restarts(here):
    for how in ("kill", "stop", "takeover"):
        wire = here.connect()
        m = Move().make(wire)
        m.session(wire)
        m.data(here).pwrite(b"z" * 4096, 0)
        here.restart(how)
        wire = here.connect()
        refused(f"after a {how} the move is not at work", "NOT_FOUND", m.session, wire)
        check("nor is anything left of it", "vm" not in here.volumes())
        check("it has not arrived", m.ask(wire, "decide")["verdict"] == "not-arrived" and m.ask(wire, "arrive")["verdict"] == "not-arrived")
        wire.close()
    wire = here.connect()
    m = Move().make(wire)
    m.session(wire)
    h = m.data(here)
    h.pwrite(b"z" * 4096, 0)
    h.flush()
    wire.send("peer.arrive", claim=m.claim)  # and the answer does not come
    end = time.monotonic() + WAIT
    while here.volumes()["vm"]["state"] != "online" and time.monotonic() < end:
        time.sleep(0.02)
    here.restart("kill")
    wire = here.connect()
    check("what has arrived stays over a kill", m.ask(wire, "decide")["verdict"] == "arrived" and contents(here, "tank/vm")[0][:4096] == b"z" * 4096)
    check("and waits for its source", "has arrived from far/vm" in here.vpool("migrate", "status"))
    here.vpool("export", "tank")
    refused("while its pool is away nobody knows", "AGAIN", m.ask, wire, "decide")
    here.vpool("import", "-d", here.dir, "tank")
    check("then it is known again", m.ask(wire, "decide")["verdict"] == "arrived")
    m.ask(wire, "confirm")
    check("until that confirms", here.json("migrate", "status")["in_doubt"] == [])
    here.vpool("volume", "delete", "tank/vm")
    wire.close()


def run(listen):
    directory = tempfile.mkdtemp(prefix="vpool-test.")
    here = Here(directory, listen.replace("DIR", directory))
    failed = True
    try:
        here.start()
        here.wait_ready()
        here.vpool("create", "tank", directory + "/d0", directory + "/d1", "--size", "512M")
        tests = (test_hello, test_arrives, test_declined, test_early_clients, test_early_clients_of_nothing, test_offers, test_secrets, test_sessions, test_streams, test_restarts)
        for test in tests if listen.startswith("unix") else (test_hello, test_arrives, test_sessions, test_restarts):
            print(f"{test.__name__}, {listen}", flush=True)
            test(here)
        here.process.terminate()
        check("the daemon ends", here.process.wait(WAIT) == 0)
        failed = "Sanitizer" in open(directory + "/log", errors="replace").read()
    finally:
        here.end(failed)
    if failed:
        raise SystemExit("FAILED: see the log")


run("unix:DIR/migrate")
run("tcp:127.0.0.1:0")
