#!/usr/bin/python3
# threads: yes
"""Several clients write, flush and verify while the daemon is killed again and again.

Each block of 4 KiB carries its number and a version. A client remembers, of each block, the version
that was last acknowledged, flushed or not, and the one being written; after a reconnect a block must
show one of them (P3, P11). VPOOL_SEED repeats a run."""
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

try:
    import nbd
except ImportError:
    print("SKIPPED: no python3-libnbd here")
    sys.exit(77)

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BIN = os.path.join(TOP, os.environ.get("VPOOL_BUILD", "build/release"))
SLOW = bool(os.environ.get("VPOOL_SLOW"))
SEED = int(os.environ.get("VPOOL_SEED", random.SystemRandom().randrange(1 << 31)))
ROUNDS, CLIENTS, BLOCKS, BLOCK = (4, 3, 512, 4096) if SLOW else (12, 4, 1024, 4096)


def block(number, version):
    if version == 0:
        return bytes(BLOCK)
    stamp = struct.pack("<QQ", number, version)
    return stamp * (BLOCK // len(stamp))


class Daemon:
    def __init__(self, directory, config=""):
        self.dir, self.socket = directory, directory + "/s"
        with open(directory + "/conf", "w") as f:
            f.write(config)
        self.log = open(directory + "/log", "ab")
        self.process = None
        self.kept = set()  # memory that outlives the process

    def start(self, *more):
        self.process = subprocess.Popen(
            [BIN + "/vpoold", "-c", self.dir + "/conf", "-s", self.socket, "--state-dir", self.dir + "/state",
             "--foreground", *more], stderr=self.log)

    def vpool(self, *args):
        return subprocess.run([BIN + "/vpool", "-s", self.socket, *args], check=True,
                              capture_output=True, text=True).stdout

    def wait_ready(self):
        end = time.monotonic() + (60 if SLOW else 15)
        while subprocess.run([BIN + "/vpool", "-s", self.socket, "list"], capture_output=True).returncode:
            if time.monotonic() > end or self.process.poll() is not None:
                raise SystemExit("FAILED: the daemon does not answer")
            time.sleep(0.02)

    def kill(self):
        with open(f"/proc/{self.process.pid}/maps") as maps:
            self.kept |= {line.split()[5] for line in maps if " /dev/shm/" in line}
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self, failed):
        """Nothing of it is left, but for what shows why the test failed."""
        if self.process and self.process.poll() is None:
            self.kill()
        if failed:
            sys.stdout.write("".join(open(self.dir + "/log", errors="replace").readlines()[-40:]))
        if os.environ.get("VPOOL_KEEP"):
            return
        shutil.rmtree(self.dir, ignore_errors=True)
        for path in self.kept:  # of a daemon that no other came after
            if os.path.exists(path):
                os.unlink(path)


class Client(threading.Thread):
    """Writes its own volume until told to stop; reconnects after each kill and verifies."""

    def __init__(self, number, uri):
        super().__init__(daemon=True)
        self.rng = random.Random(f"{SEED}/{number}")
        self.number, self.uri = number, uri
        self.stop = threading.Event()
        self.durable = [0] * BLOCKS  # the version that was acknowledged
        self.maybe = {}  # block -> the version being written
        self.version = 0
        self.failure = None
        self.pause = 0  # seconds after each write
        self.verified = self.flushes = self.connects = 0

    def connect(self):
        end = time.monotonic() + (60 if SLOW else 20)
        while True:
            h = nbd.NBD()
            try:
                h.connect_uri(self.uri)
                self.connects += 1
                return h
            except nbd.Error:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def verify(self, h):
        data = h.pread(BLOCKS * BLOCK, 0)
        for i in range(BLOCKS):
            got = bytes(data[i * BLOCK:(i + 1) * BLOCK])
            allowed = [self.durable[i]] + self.maybe.get(i, [])
            match = [v for v in allowed if block(i, v) == got]
            if not match:
                head = struct.unpack("<QQ", got[:16])
                raise AssertionError(f"client {self.number} block {i}: {head} is none of {allowed}")
            if i in self.maybe:  # what was read once is what stays until the next write
                self.maybe[i] = match
                self.durable[i] = match[0]
            self.verified += 1

    def work(self, h):
        while not self.stop.is_set():
            for _ in range(self.rng.randrange(1, 24)):
                self.version += 1
                at, count = self.rng.randrange(BLOCKS), self.rng.choice((1, 1, 1, 4, 16))
                count = min(count, BLOCKS - at)
                zero = self.rng.random() < 0.1
                version = 0 if zero else self.version
                for i in range(at, at + count):
                    self.maybe.setdefault(i, []).append(version)
                if zero:
                    h.zero(count * BLOCK, at * BLOCK)
                else:
                    h.pwrite(b"".join(block(i, version) for i in range(at, at + count)), at * BLOCK)
                for i in range(at, at + count):
                    self.durable[i] = version
                self.maybe.clear()
                if self.pause:
                    time.sleep(self.pause)
            if self.rng.random() < 0.1:
                h.flush()
                self.flushes += 1

    def run(self):
        try:
            while not self.stop.is_set():
                h = self.connect()
                try:
                    self.verify(h)
                    self.work(h)
                except nbd.Error:
                    continue  # killed under us
            self.verify(self.connect())
        except BaseException as e:
            self.failure = e


def clients_end(clients):
    """They stop, and none has failed."""
    for c in clients:
        c.stop.set()
    for c in clients:
        c.join(120)
        if c.failure or c.is_alive():
            raise SystemExit(f"FAILED: client {c.number}: {c.failure or 'hangs'}")


def run(daemon, rng):
    daemon.start()
    daemon.wait_ready()
    disks = [f"{daemon.dir}/d{i}" for i in range(3)]
    daemon.vpool("create", "tank", "--raid", "mirror:2", "--size", "1G", *disks)
    clients = []
    for i in range(CLIENTS):
        daemon.vpool("volume", "create", f"tank/v{i}", "--size", "64M")
        clients.append(Client(i, daemon.vpool("attach", f"tank/v{i}", "--nbd", f"unix:{daemon.dir}/n{i}").strip()))
    for c in clients:
        c.start()
    slowest = 0
    for _ in range(ROUNDS):
        time.sleep(rng.uniform(0.05, 1.0))
        if rng.random() < 0.3:
            subprocess.run([BIN + "/vpool", "-s", daemon.socket, "checkpoint", "tank"], capture_output=True)
        daemon.kill()
        began = time.monotonic()
        daemon.start()
        daemon.wait_ready()
        slowest = max(slowest, time.monotonic() - began)
        for c in clients:
            if c.failure:
                raise SystemExit(f"FAILED: {c.failure}")
    clients_end(clients)
    print(f"{ROUNDS} kills, slowest restart {slowest * 1000:.0f} ms; "
          f"{sum(c.connects for c in clients)} connections, {sum(c.flushes for c in clients)} flushes, "
          f"{sum(c.verified for c in clients)} blocks verified")
    if slowest > 2 and not SLOW:
        raise SystemExit("FAILED: a restart took longer than two seconds")
    daemon.process.terminate()
    if daemon.process.wait(60) != 0:
        raise SystemExit(f"FAILED: the daemon ended with {daemon.process.returncode}")


def main(body):
    """body(daemon, rng), with a daemon that has not been started."""
    print(f"seed {SEED}: VPOOL_SEED={SEED} {sys.argv[0]}", flush=True)
    daemon = Daemon(tempfile.mkdtemp(prefix="vpool-test."))
    failed = True
    try:
        body(daemon, random.Random(SEED))
        failed = False
    finally:
        daemon.end(failed)


if __name__ == "__main__":
    main(run)
