#!/usr/bin/python3
# threads: yes
"""Clients that send garbage, stall, flood and vanish, while a good one writes and verifies.

The good client must see no error and no wrong byte; the daemon must neither die nor grow without
bound, and must take new clients when it is over. VPOOL_SEED repeats a run."""
import os
import random
import shutil
import signal
import socket
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
SECONDS = 6 if SLOW else 8
RSS_MAX_MB = 0 if SLOW else 600  # sanitizers have memory of their own
FLAGS = struct.pack(">I", 3)


def option(kind, payload=b""):
    return b"IHAVEOPT" + struct.pack(">II", kind, len(payload)) + payload


def go(name=b"tank/v"):
    return FLAGS + option(7, struct.pack(">I", len(name)) + name + b"\0\0")


def command(kind, offset, length, flags=0):
    return struct.pack(">IHHQQI", 0x25609513, flags, kind, 1, offset, length)


class Daemon:
    def __init__(self, directory):
        self.dir, self.socket, self.nbd = directory, directory + "/s", directory + "/v.sock"
        self.process = subprocess.Popen(
            [BIN + "/vpoold", "-s", self.socket, "--state-dir", directory + "/state", "--foreground"],
            stderr=open(directory + "/log", "wb"))
        end = time.monotonic() + (60 if SLOW else 15)
        while subprocess.run([BIN + "/vpool", "-s", self.socket, "list"], capture_output=True).returncode:
            if time.monotonic() > end or self.process.poll() is not None:
                sys.exit("FAILED: the daemon does not answer")
            time.sleep(0.02)

    def vpool(self, *args):
        subprocess.run([BIN + "/vpool", "-s", self.socket, *args], check=True, stdout=subprocess.DEVNULL)

    def rss_mb(self):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("VmRSS"):
                return int(line.split()[1]) >> 10


class Good(threading.Thread):
    """Writes blocks of its half of the volume and reads them back."""

    def __init__(self, uri):
        super().__init__(daemon=True)
        self.uri, self.stop, self.done, self.error = uri, False, 0, None

    def run(self):
        try:
            h = nbd.NBD()
            h.connect_uri(self.uri)
            rng = random.Random(SEED)
            while not self.stop:
                data = rng.randbytes(rng.choice((512, 4096, 65536)))
                at = rng.randrange(0, (16 << 20) - len(data))
                h.pwrite(data, at)
                if h.pread(len(data), at) != data:
                    raise AssertionError(f"wrong bytes at {at}")
                self.done += 1
                if self.done % 16 == 0:
                    h.flush()
            h.shutdown()
        except Exception as e:  # reported by the main thread
            self.error = e


# ---- the hostile ones: each gets a connected socket and its own random numbers -----------------

def garbage(s, rng):
    s.sendall(rng.randbytes(rng.randrange(1, 5000)))
    s.recv(100)


def garbage_after_handshake(s, rng):
    s.sendall(go() + rng.randbytes(rng.randrange(1, 5000)))
    s.recv(1000)


def vanish_anywhere(s, rng):
    data = rng.randbytes(70000)
    talk = go() + command(1, 20 << 20, len(data)) + data + command(0, 0, 1 << 20)
    s.sendall(talk[:rng.randrange(len(talk))])


def never_read(s, rng):
    s.sendall(go() + command(0, 0, 8 << 20) * 200)
    time.sleep(1)


def never_send_payload(s, rng):
    s.sendall(go() + command(1, 20 << 20, 1 << 20) + b"x" * 100)
    time.sleep(1)


def flood_of_options(s, rng):
    s.settimeout(1)
    try:
        for _ in range(2000):
            s.sendall(option(3) + option(6, b"\xff" * 6) + option(77, b"x" * 100))
    except OSError:
        pass


def long_option(s, rng):
    s.sendall(FLAGS + b"IHAVEOPT" + struct.pack(">II", 3, rng.choice((1 << 20, 0xffffffff))) + b"x" * 50000)


def flood_of_requests(s, rng):
    s.settimeout(1)
    try:
        s.sendall(go())
        for _ in range(300):
            s.sendall(b"".join(command(rng.randrange(0, 12), rng.randrange(1 << 36), rng.randrange(1 << 22),
                                       rng.randrange(1 << 6)) for _ in range(20) if True))
            s.recv(1 << 16)
    except OSError:
        pass


def silent(s, rng):
    s.recv(100)
    time.sleep(rng.random())


HOSTILE = (garbage, garbage_after_handshake, vanish_anywhere, never_read, never_send_payload, flood_of_options,
           long_option, flood_of_requests, silent)


class Hostile(threading.Thread):
    def __init__(self, path, number):
        super().__init__(daemon=True)
        self.path, self.rng, self.stop, self.count = path, random.Random(SEED * 100 + number), False, 0

    def run(self):
        while not self.stop:
            s = socket.socket(socket.AF_UNIX)
            try:
                s.settimeout(5)
                s.connect(self.path)
                self.rng.choice(HOSTILE)(s, self.rng)
            except OSError:
                pass
            finally:
                s.close()
            self.count += 1


def many_connections(path):
    """More than the limit: the newcomers are closed, the others stay."""
    held = []
    closed = 0
    for _ in range(100):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(5)
        s.connect(path)
        try:
            closed += s.recv(18) == b""
        except ConnectionError:
            closed += 1
        held.append(s)
    for s in held:
        s.close()
    return closed


def main():
    print(f"VPOOL_SEED={SEED}")
    directory = tempfile.mkdtemp(prefix="vpool-hostile.")
    daemon = Daemon(directory)
    try:
        daemon.vpool("create", "tank", "--size", "256M", directory + "/d0")
        daemon.vpool("volume", "create", "tank/v", "--size", "64M")
        daemon.vpool("attach", "tank/v", "--nbd", "unix:" + daemon.nbd)
        good = Good(f"nbd+unix:///tank/v?socket={daemon.nbd}")
        bad = [Hostile(daemon.nbd, n) for n in range(6)]
        for t in [good, *bad]:
            t.start()
        peak = 0
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and daemon.process.poll() is None:
            peak = max(peak, daemon.rss_mb())
            time.sleep(0.05)
        for t in bad:
            t.stop = True
        for t in bad:
            t.join(30)
        before = good.done
        closed = many_connections(daemon.nbd)
        time_out = time.monotonic() + 20
        while good.done == before and not good.error and time.monotonic() < time_out:
            time.sleep(0.05)
        good.stop = True
        good.join(30)
        print(f"good requests {good.done}, hostile connections {sum(t.count for t in bad)}, peak {peak} MiB, "
              f"{closed} of 100 refused")
        if daemon.process.poll() is not None:
            sys.exit("FAILED: the daemon died")
        if good.error or good.is_alive() or good.done == before:
            sys.exit(f"FAILED: the good client suffered: {good.error}")
        if RSS_MAX_MB and peak > RSS_MAX_MB:
            sys.exit(f"FAILED: the daemon grew to {peak} MiB")
        if not 30 <= closed <= 50:
            sys.exit(f"FAILED: {closed} connections of 100 were refused, with a limit of 64")
        daemon.process.send_signal(signal.SIGTERM)
        if daemon.process.wait(60):
            sys.exit(f"FAILED: the daemon ended with {daemon.process.returncode}")
    finally:
        if daemon.process.poll() is None:
            daemon.process.kill()
        log = open(directory + "/log", errors="replace").read()
        shutil.rmtree(directory)
        if "Sanitizer" in log or "runtime error" in log:
            sys.exit("FAILED:\n" + log[-8000:])


if __name__ == "__main__":
    main()
