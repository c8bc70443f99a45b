#!/usr/bin/python3
"""Clients that hold buffers for long do not slow another volume of the same reactor.

First 60 connections ask for 16 MiB each and never read; then writes of a volume wait for space, large ones
and then as many small ones as two volumes have connections for. The reads of another volume keep at
least half of their rate, and the first kind is not hung up."""
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BIN = os.path.join(TOP, os.environ.get("VPOOL_BUILD", "build/release"))
READ, WRITE = 0, 1
ROUNDS, SECONDS, DEPTH, STALLED, SMALL = 8, 0.4, 16, 60, 60


def vpool(*args):
    return subprocess.run([BIN + "/vpool", "-s", DIR + "/s", *args], check=True, capture_output=True, text=True).stdout


def wait_for(what, condition):
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end or daemon.poll() is not None:
            sys.exit("FAILED: " + what)
        time.sleep(0.02)


def receive(s, n):
    while n:
        got = len(s.recv(min(n, 65536)))
        if not got:
            sys.exit("FAILED: the connection was hung up")
        n -= got


def client(volume):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(DIR + "/" + volume)
    receive(s, 18)
    s.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0))
    receive(s, 10)
    return s


def command(kind, cookie, offset, length):
    return struct.pack(">IHHQQI", 0x25609513, 0, kind, cookie, offset, length)


def rate(s):
    """4 KiB reads a second."""
    began, done = time.monotonic(), 0
    while time.monotonic() < began + SECONDS:
        s.sendall(b"".join(command(READ, k, k * 4096, 4096) for k in range(DEPTH)))
        receive(s, DEPTH * (16 + 4096))
        done += DEPTH
    return done / (time.monotonic() - began)


def keeps_its_rate(what, reader, alone):
    """The best of some rounds, because other programs run here."""
    best = 0
    for _ in range(ROUNDS):
        best = max(best, rate(reader))
        if best >= alone / 2:
            break
    print(f"{what}: {best:.0f} reads a second, {alone:.0f} alone")
    if best < alone / 2:
        sys.exit(f"FAILED: {what}: less than half of the rate is left")


def stalled_readers(reader, alone):
    stalled = [client("h") for _ in range(STALLED)]
    for s in stalled:
        s.sendall(b"".join(command(READ, k, k << 20, 1 << 20) for k in range(16)))
    keeps_its_rate(f"{STALLED} readers that do not read", reader, alone)
    for s in stalled:  # all are served still
        receive(s, 16 + 65536)
        s.close()


def paused_writers(reader, alone):
    writers = [client("h") for _ in range(3)]
    data = os.urandom(1 << 20)
    for k, s in enumerate(writers):
        s.setblocking(False)
    at = [0] * len(writers)
    pending = [b""] * len(writers)

    def pump():
        for k, s in enumerate(writers):
            for _ in range(64):
                if not pending[k]:
                    offset = ((k << 10) + at[k]) << 20
                    pending[k], at[k] = command(WRITE, at[k], offset, len(data)) + data, at[k] + 1
                try:
                    pending[k] = pending[k][s.send(pending[k]):]
                except BlockingIOError:
                    break
        return "wait for space" in vpool("volume", "show", "tank/h")

    wait_for("no write waits for space", pump)
    for _ in range(20):
        pump()
    keeps_its_rate("writers that wait for space", reader, alone)
    return writers


def paused_small_writers(alone):
    """More of them than a reactor has coroutines: each would take one of another volume's."""
    held = []
    data = os.urandom(4096)
    for name in "hi":
        for k in range(SMALL):
            s = client(name)
            s.setblocking(False)
            held.append(s)
            frames = b"".join(command(WRITE, n, (2 << 30) + (k * 128 + n) * 65536, 4096) + data for n in range(128))
            while frames:
                try:
                    frames = frames[s.send(frames):]
                except BlockingIOError:
                    break
    waiting = lambda: [vpool("volume", "show", "tank/" + name) for name in "hi"]
    wait_for("no small write waits for space", lambda: all("wait for space" in text for text in waiting()))
    keeps_its_rate(f"{len(held)} connections of small writes that wait for space", client("o"), alone)


DIR = tempfile.mkdtemp(prefix="vpool-fair.")
DISK = tempfile.mkdtemp(prefix="vpool-fair.", dir="/dev/shm")
with open(DIR + "/conf", "w") as f:
    f.write("reactors = 1;\n")
daemon = subprocess.Popen([BIN + "/vpoold", "-c", DIR + "/conf", "-s", DIR + "/s", "--state-dir", DIR + "/state",
                           "--foreground"], stderr=open(DIR + "/log", "wb"))
try:
    wait_for("the daemon does not answer", lambda: subprocess.run(
        [BIN + "/vpool", "-s", DIR + "/s", "list"], capture_output=True).returncode == 0)
    vpool("create", "tank", "--size", "256M", DISK + "/d0")
    for name in "hio":
        vpool("volume", "create", "tank/" + name, "--size", "10G")
        vpool("attach", "tank/" + name, "--nbd", "unix:" + DIR + "/" + name)
    good = client("o")
    good.sendall(command(WRITE, 1, 0, 65536) + os.urandom(65536))
    receive(good, 16)
    filled = client("h")  # what the stalled ones ask for is data, not holes
    for k in range(16):
        filled.sendall(command(WRITE, k, k << 20, 1 << 20) + os.urandom(1 << 20))
        receive(filled, 16)
    reads_alone = max(rate(good) for _ in range(3))
    stalled_readers(good, reads_alone)
    writers = paused_writers(good, reads_alone)
    paused_small_writers(reads_alone)
finally:
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    shutil.rmtree(DIR)
    shutil.rmtree(DISK)
