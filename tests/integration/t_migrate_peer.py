#!/usr/bin/python3
# threads: yes
# long: yes
"""Volumes move between two daemons while clients write, and everything between them fails: daemons are killed and
stopped, connections are cut, or say nothing any more.

First the volume moves there and back, undisturbed, VPOOL_TRIPS times in each mode; then VPOOL_ROUNDS rounds of trials.
After each trial each volume has exactly one owner, and clients, who follow it, find there what was acknowledged to them
(t_sigkill.py has the clients). VPOOL_SEED repeats a run."""
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from t_sigkill import BIN, SEED, SLOW, Client, Daemon, clients_end, nbd  # noqa: E402

ROUNDS = int(os.environ.get("VPOOL_ROUNDS", 1))
TRIPS = int(os.environ.get("VPOOL_TRIPS", 1 if SLOW else 5))
WAIT = 120 if SLOW else 60
MODES = ("live", "mirror", "offline")
BULK_AT, BULK = 16 << 20, int(os.environ.get("VPOOL_BULK_MIB", 48)) << 20  # what nobody writes: it makes a move last
VOLUME = "1T"  # sparse
COPIES, MIRRORED = 1, 3  # the connections of a move, in the order in which they are made; 0: messages


class Host(Daemon):
    """A daemon that volumes leave, and come to."""

    def __init__(self, directory, pool):
        self.pool, self.listen, self.seen = pool, f"unix:{directory}/peer", f"{directory}/proxy"
        self.peer = f"unix:{self.seen}"  # where the other one finds it
        super().__init__(directory, 'migrate: { listen = "%s"; };\n' % self.listen)

    def restart(self):
        self.start()
        self.wait_ready()

    def json(self, *args):
        return json.loads(self.vpool("--json", *args))

    def tries(self, *args):
        return subprocess.run([BIN + "/vpool", "-s", self.socket, *args], capture_output=True, text=True)

    def moves(self):
        return self.json("migrate", "status")


class Proxy(threading.Thread):
    """The way to a daemon. It can be cut, and it can go silent: then bytes stay where they are."""

    def __init__(self, host):
        super().__init__(daemon=True)
        self.to, self.path = host.listen[5:], host.seen
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(self.path)
        self.server.listen(64)
        self.lock, self.pairs = threading.Lock(), []
        self.is_cut = False
        self.silent_after = None  # bytes of one connection, in one direction
        self.loses = None  # a message, with all that comes later in its connection
        self.loses_once = False
        self.silent_at = None  # a message; nothing comes after it
        self.lost = threading.Event()
        self.flows = threading.Event()
        self.flows.set()

    def run(self):
        while True:
            near, _ = self.server.accept()
            far = socket.socket(socket.AF_UNIX)
            try:
                if self.is_cut:
                    raise OSError
                far.connect(self.to)
            except OSError:
                near.close()
                continue
            with self.lock:
                self.pairs.append((near, far))
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(a, b), daemon=True).start()

    def carry(self, a, b):
        carried = 0
        try:
            while True:
                data = a.recv(1 << 16)
                if not data:
                    break
                carried += len(data)
                if self.silent_after and carried > self.silent_after:
                    self.flows.clear()
                self.flows.wait()
                if self.loses and self.loses in data:
                    self.loses = None if self.loses_once else self.loses
                    self.lost.set()
                    break
                b.sendall(data)
                if self.silent_at and self.silent_at in data:
                    self.flows.clear()
                    self.lost.set()
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def forget(self):
        with self.lock:
            self.pairs = []

    def drop(self, only=None):
        """Ends all connections, or only the one of this number."""
        with self.lock:
            pairs = self.pairs if only is None else self.pairs[only:only + 1]
            self.pairs = [p for p in self.pairs if p not in pairs]
        for pair in pairs:
            for s in pair:
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def cut(self):
        self.is_cut = True
        self.drop()

    def heal(self):
        self.is_cut, self.silent_after, self.silent_at, self.loses = False, None, None, None
        self.lost.clear()
        self.flows.set()


class Follower(Client):
    """A client of a volume that is at one of several places. A place that it has left refuses."""

    def __init__(self, number, uris):
        super().__init__(number, uris[0])
        self.uris = uris

    def work(self, h):
        try:
            super().work(h)
        except nbd.Error:
            h.shutdown()  # as a hypervisor does, which flushes once more
            raise

    def connect(self):
        end = time.monotonic() + WAIT
        while True:
            h = nbd.NBD()
            self.uris = self.uris[1:] + self.uris[:1]
            try:
                h.connect_uri(self.uris[0])
                h.pread(4096, 0)
                self.connects += 1
                return h
            except nbd.Error:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)


class World:
    def __init__(self, directory, rng):
        self.rng = rng
        self.hosts = [Host(os.path.join(directory, name), pool) for name, pool in (("a", "tank"), ("b", "silo"))]
        self.proxies = [Proxy(h) for h in self.hosts]
        self.clients = []
        self.took = {}
        self.trials = self.compared = self.pauses = 0

    def fail(self, text):
        status = [h.tries("migrate", "status").stdout for h in self.hosts]
        raise SystemExit(f"FAILED: {text}\n" + "\n".join(status))

    def start(self):
        for host, proxy in zip(self.hosts, self.proxies):
            host.restart()
            host.vpool("create", host.pool, "--size", "1G", f"{host.dir}/disk")
            proxy.start()
        a = self.hosts[0]
        a.vpool("volume", "create", "tank/v", "--size", VOLUME)
        uris = [f"nbd+unix:///{h.pool}/v?socket={h.dir}/n" for h in self.hosts]
        a.vpool("attach", "tank/v", "--nbd", f"unix:{a.dir}/n")
        h = nbd.NBD()
        h.connect_uri(uris[0])
        self.bulk = self.rng.randbytes(BULK)
        for at in range(0, BULK, 1 << 20):
            h.pwrite(self.bulk[at:at + (1 << 20)], BULK_AT + at)
        h.flush()
        h.shutdown()
        self.uris = uris
        self.clients = [Follower(0, uris)]
        for c in self.clients:
            c.start()

    # ---- who owns the volume

    def owner_now(self):
        """The index of the host that has the volume; None: that is not settled."""
        owners = []
        for i, host in enumerate(self.hosts):
            status = host.moves()
            at_work = [m for m in status["migrations"] if not m["ended"]]
            if status["in_doubt"] or any(not m["incoming"] for m in at_work):
                return None
            coming = [m["to"] for m in at_work]  # of a source that does not know any more: for a minute
            owners += [i for v in host.json("volume", "list")["volumes"]
                       if v["name"] == "v" and f"{host.pool}/v" not in coming]
        return owners

    def settled(self):
        end = time.monotonic() + WAIT
        while True:
            owners = self.owner_now()
            if owners and len(owners) == 1:
                break
            if time.monotonic() > end or (owners and len(owners) > 1):
                self.fail(f"owners: {owners}")
            time.sleep(0.05)
        host = self.hosts[owners[0]]
        if not host.json("attachments")["attachments"]:
            host.vpool("attach", f"{host.pool}/v", "--nbd", f"unix:{host.dir}/n")
        return owners[0]

    def check_clients(self, connects):
        end = time.monotonic() + WAIT
        while any(c.connects <= n and not c.failure for c, n in zip(self.clients, connects)):
            if time.monotonic() > end:
                self.fail("clients do not come back")
            time.sleep(0.01)
        for c in self.clients:
            if c.failure:
                self.fail(f"client: {c.failure}")

    def check_bulk(self, at):
        h = nbd.NBD()
        h.connect_uri(self.uris[at])
        for off in range(0, BULK, 1 << 20):
            if bytes(h.pread(1 << 20, BULK_AT + off)) != self.bulk[off:off + (1 << 20)]:
                self.fail(f"what nobody wrote has changed at byte {BULK_AT + off}")
        h.shutdown()

    # ---- moves

    def begin(self, at, mode):
        """Every third one compares what was copied, but for offline ones."""
        here, there = self.hosts[at], self.hosts[1 - at]
        self.trials += 1
        verify = ["--verify"] if mode != "offline" and self.trials % 3 == 1 else []
        out = here.tries("--json", "migrate", f"{here.pool}/v", "--to", there.pool, "--peer", there.peer,
                         "--mode", mode, *verify)
        if out.returncode:
            self.fail(f"the move does not begin: {out.stderr}")
        return json.loads(out.stdout)["id"]

    def move_of(self, at, move):
        return [m for m in self.hosts[at].moves()["migrations"] if m["id"] == move][0]

    def end_of(self, at, move):
        end = time.monotonic() + WAIT
        while True:
            m = self.move_of(at, move)
            if m["ended"]:
                return m
            if time.monotonic() > end:
                self.fail("the move does not end")
            time.sleep(0.01)

    def check_left(self, at, idle):
        """What a client gets that is still connected at the source, and one that comes too late."""
        end = time.monotonic() + WAIT
        while True:  # until the door is closed
            try:
                late = nbd.NBD()
                late.connect_uri(self.uris[at])
                late.shutdown()
            except nbd.Error:
                break
            if time.monotonic() > end:
                self.fail("the source takes new clients")
        idle.flush()
        for request in (lambda: idle.pread(4096, 0), lambda: idle.pwrite(bytes(4096), 0), lambda: idle.zero(4096, 0)):
            try:
                request()
                self.fail("the source serves a volume that has left")
            except nbd.Error as e:
                if e.errno != "ESHUTDOWN":
                    self.fail(f"the source answers {e.errno}")
        idle.shutdown()

    def trial(self, name, mode, disturb, outcomes):
        """A move, something that happens meanwhile, and how it may end: "done", "stays"."""
        began = time.monotonic()
        before = self.settled()
        connects = [c.connects for c in self.clients]
        for proxy in self.proxies:
            proxy.forget()
        disturb(before, self.begin(before, mode), mode)
        after = self.settled()
        if ("done" if after != before else "stays") not in outcomes:
            self.fail(f"{name}, {mode}: owner {before} → {after}")
        if after != before:
            self.check_clients(connects)
        for c in self.clients:
            if c.failure:
                self.fail(f"client: {c.failure}")
        self.check_bulk(after)
        print(f"- {name}, {mode}: {'moved' if after != before else 'stays'}, {time.monotonic() - began:.1f} s", flush=True)

    def moment(self, mode):
        time.sleep(self.rng.uniform(0, 1.3 * self.took[mode]))


def undisturbed(w):
    def run(at, move, mode):
        began = time.monotonic()
        idle = nbd.NBD()
        idle.connect_uri(w.uris[at])
        while w.move_of(at, move)["phase"] not in ("leaving", "done"):
            time.sleep(0.002)
        w.took[mode] = time.monotonic() - began
        w.check_left(at, idle)
        m = w.end_of(at, move)
        if m["phase"] != "done" or m["breaks"]:
            w.fail(f"{m}")
        if m["verify"] and m["verify"]["compared_bytes"] < BULK:
            w.fail(f"{m}")
        w.compared += m["verify"] is not None
    return run


def killed(w, which):
    def run(at, _move, mode):
        w.moment(mode)
        victim = w.hosts[at if which == "source" else 1 - at]
        victim.kill()
        time.sleep(w.rng.uniform(0, 0.3))
        victim.restart()
    return run


def cut(w, seconds):
    def run(at, move, mode):
        proxy = w.proxies[1 - at]
        w.moment(mode)
        proxy.cut()
        time.sleep(seconds)
        proxy.heal()
        w.end_of(at, move)
    return run


def one_cut(w, which):
    """The connection of this number breaks."""
    def run(at, move, mode):
        proxy = w.proxies[1 - at]
        while len(proxy.pairs) <= MIRRORED:
            time.sleep(0.002)
        proxy.drop(which)
        m = w.end_of(at, move)
        if m["phase"] != "done" or m["breaks"] != 1:
            w.fail(f"{m}")
    return run


def silent(w, seconds):
    def run(at, move, mode):
        proxy = w.proxies[1 - at]
        w.moment(mode)
        proxy.flows.clear()
        time.sleep(seconds)
        proxy.heal()
        w.end_of(at, move)
    return run


def silent_for_good(w):
    """From the middle of the copy on. Nothing says that the connection is dead, and clients wait for the copy."""
    def run(at, move, _mode):
        m = w.end_of(at, move)
        if m["phase"] != "failed":
            w.fail(f"{m}")
        version, end = w.clients[0].version, time.monotonic() + WAIT
        while w.clients[0].version == version:
            if time.monotonic() > end:
                w.fail("clients do not go on")
            time.sleep(0.01)
        w.proxies[1 - at].heal()
    w.proxies[1 - w.settled()].silent_after = BULK // 4
    return run


def unconfirmed(w, how):
    """The source's last message does not arrive, and the source is killed, or goes on."""
    def run(at, _move, _mode):
        here, there, proxy = w.hosts[at], w.hosts[1 - at], w.proxies[1 - at]
        if not proxy.lost.wait(WAIT):
            w.fail("no peer.confirm")
        if how == "killed":
            here.kill()
            out = there.tries("volume", "delete", f"{there.pool}/v")
            if out.returncode == 0 or "has not said yet that it is deleted there" not in out.stderr:
                w.fail(f"deleted before its source is known to be gone: {out.stderr}")
            here.restart()
        end = time.monotonic() + WAIT
        while not [m for m in here.moves()["in_doubt"] if m["side"] == "gone" and m["other"] == f"{there.pool}/v"]:
            if time.monotonic() > end:
                w.fail("the source does not say whom it has not reached")
            time.sleep(0.02)
        if here.json("status")["pools"][0].get("in_doubt"):
            w.fail("nothing of this needs attention")
        if how == "forgotten":
            out = here.vpool("migrate", "forget", f"{here.pool}/v", "--force")
            if "is gone from here" not in out or here.moves()["in_doubt"]:
                w.fail(f"not forgotten: {out}")
            proxy.heal()
            there.vpool("migrate", "forget", f"{there.pool}/v", "--force")
        proxy.heal()
        while here.moves()["in_doubt"] or there.moves()["in_doubt"]:
            if time.monotonic() > end:
                w.fail("the destination is never told")
            time.sleep(0.05)
    w.proxies[1 - w.settled()].loses = b"peer.confirm"
    return run


def stopped(w, which, seconds):
    def run(at, move, mode):
        victim = w.hosts[at if which == "source" else 1 - at]
        w.moment(mode)
        victim.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        victim.process.send_signal(signal.SIGCONT)
        w.end_of(at, move)
    return run


def cancelled(w, which):
    def run(at, move, mode):
        host = w.hosts[at if which == "source" else 1 - at]
        w.moment(mode)
        host.tries("migrate", "cancel", f"{host.pool}/v")
        w.end_of(at, move)
    return run


def paused(w, seconds):
    def run(at, move, mode):
        host, there = w.hosts[at], w.hosts[1 - at]
        if host.tries("migrate", "pause", f"{host.pool}/v").returncode == 0:
            out = there.tries("migrate", "pause", f"{there.pool}/v")
            if out.returncode == 0 or f"pause the move of {host.pool}/v there" not in out.stderr:
                w.fail(f"a pause at the destination: {out.stdout}{out.stderr}")
            time.sleep(0.5)  # the step that was under way
            before = w.move_of(at, move)
            time.sleep(seconds)
            now = w.move_of(at, move)
            if not now["paused"] or now["copied_bytes"] != before["copied_bytes"] or now["breaks"]:
                w.fail(f"it is not paused: {before} {now}")
            host.vpool("migrate", "resume", f"{host.pool}/v")
            w.pauses += 1
        w.end_of(at, move)
    return run


def run(directory, rng, w):
    w.start()
    for mode in MODES:
        for _ in range(2 * TRIPS):
            w.trial("undisturbed", mode, undisturbed(w), ("done",))
    if not w.compared:
        w.fail("no move has compared what it copied")
    for _ in range(ROUNDS):
        for mode in MODES:
            for which in ("source", "destination"):
                w.trial(f"the {which} is killed", mode, killed(w, which), ("done", "stays"))
                w.trial(f"cancelled at the {which}", mode, cancelled(w, which), ("done", "stays"))
        for which in (COPIES, MIRRORED):
            w.trial(f"connection {which} breaks", "mirror", one_cut(w, which), ("done",))
        for mode in ("live", "mirror"):
            w.trial("the network is cut for a second", mode, cut(w, 1), ("done",))
            w.trial("the network is silent for three seconds", mode, silent(w, 3), ("done", "stays"))
            for which in ("source", "destination"):
                w.trial(f"the {which} stands still for two seconds", mode, stopped(w, which, 2), ("done", "stays"))
        for _ in range(4):  # until one is slower than a command
            if w.pauses == 0:
                w.trial("paused", "live", paused(w, 6), ("done",))
    if ROUNDS and not w.pauses:
        w.fail("no move was paused")
    for how, mode in (("killed", "live"), ("alive", "offline"), ("forgotten", "mirror")):
        w.trial(f"the last message is lost, the source is {how}", mode, unconfirmed(w, how), ("done",))
    w.trial("the network is silent for good", "offline", silent_for_good(w), ("stays",))
    clients_end(w.clients)
    print(f"{sum(c.connects for c in w.clients)} connections, {sum(c.verified for c in w.clients)} blocks verified")


def main():
    print(f"seed {SEED}: VPOOL_SEED={SEED} {sys.argv[0]}", flush=True)
    directory = tempfile.mkdtemp(prefix="vpool-test.")
    for name in ("a", "b"):
        os.mkdir(os.path.join(directory, name))
    w = World(directory, random.Random(SEED))
    failed = True
    try:
        run(directory, w.rng, w)
        failed = False
    finally:
        for host in w.hosts:
            host.end(failed)
        if not os.environ.get("VPOOL_KEEP"):
            for path in [h.seen for h in w.hosts]:
                if os.path.exists(path):
                    os.unlink(path)
            if not os.listdir(directory):
                os.rmdir(directory)


if __name__ == "__main__":
    main()
