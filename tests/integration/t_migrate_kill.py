#!/usr/bin/python3
# threads: yes
"""Volumes move between two pools while clients write, and the daemon is killed or taken over in the middle.

A move alone, in whatever mode, is not seen by a client: it stays connected. After a kill each volume has exactly one
owner, and clients find there what was acknowledged to them (t_sigkill.py has the clients).
VPOOL_SEED repeats a run."""
import hashlib
import json
import sys
import time

sys.dont_write_bytecode = True
from t_sigkill import SLOW, Client, clients_end, main, nbd  # noqa: E402

ROUNDS, VOLUMES = (3, 2) if SLOW else (9, 2)
MODES = ("live", "mirror", "offline")
BULK_AT, BULK = 16 << 20, 32 << 20  # what nobody writes: it makes a move last
OTHER = {"tank": "silo", "silo": "tank"}


class Moves:
    def __init__(self, daemon):
        self.daemon = daemon

    def call(self, *args):
        return json.loads(self.daemon.vpool("--json", *args))

    def owners(self):
        """Where each volume is: {"v0": "tank"}; None while that is not settled."""
        volumes = self.call("volume", "list")["volumes"]
        if any(v["state"] != "online" for v in volumes) or self.call("migrate", "status")["in_doubt"]:
            return None
        where = {v["name"]: v["pool"] for v in volumes}
        if len(where) != len(volumes) or len(where) != VOLUMES:
            raise SystemExit(f"FAILED: {[v['pool'] + '/' + v['name'] for v in volumes]}")
        return where

    def settled(self):
        end = time.monotonic() + 20
        while True:
            where = self.owners()
            if where:
                return where
            if time.monotonic() > end:
                raise SystemExit("FAILED: not settled: " + self.daemon.vpool("migrate", "status"))
            time.sleep(0.02)

    def start(self, where, mode):
        for name, pool in where.items():
            self.daemon.vpool("migrate", f"{pool}/{name}", "--to", OTHER[pool], "--mode", mode)


def wait_for_clients(clients, connects):
    """Until each has connected again, and verified."""
    end = time.monotonic() + (60 if SLOW else 20)
    while not all(c.connects > n for c, n in zip(clients, connects)):
        failed = [c for c in clients if c.failure]
        if failed or time.monotonic() > end:
            raise SystemExit(f"FAILED: {[str(c.failure) for c in failed] or 'clients do not come back'}")
        time.sleep(0.01)


def bulk_digest(uri):
    h = nbd.NBD()
    h.connect_uri(uri)
    digest = hashlib.sha256()
    for at in range(BULK_AT, BULK_AT + BULK, 1 << 20):
        digest.update(h.pread(1 << 20, at))
    h.shutdown()
    return digest.hexdigest()


def bulk_fill(uri, rng):
    h = nbd.NBD()
    h.connect_uri(uri)
    for at in range(BULK_AT, BULK_AT + BULK, 1 << 20):
        h.pwrite(rng.randbytes(1 << 20), at)
    h.flush()
    h.shutdown()


def moves_alone(moves, clients, mode):
    """Returns how long both took."""
    before = moves.settled()
    began = time.monotonic()
    moves.start(before, mode)
    while True:
        status = moves.call("migrate", "status")["migrations"]
        if all(m["ended"] for m in status):
            break
        if time.monotonic() > began + 60:
            raise SystemExit(f"FAILED: the moves do not end: {status}")
        time.sleep(0.02)
    took = time.monotonic() - began
    if any(m["phase"] != "done" for m in status):
        raise SystemExit(f"FAILED: {status}")
    after = moves.settled()
    if after != {name: OTHER[pool] for name, pool in before.items()}:
        raise SystemExit(f"FAILED: {after} after {before}")
    if any(c.connects != 1 or c.failure for c in clients):
        raise SystemExit(f"FAILED: clients: {[(c.connects, c.failure) for c in clients]}")
    return took


def takeover(daemon):
    before = daemon.process
    daemon.start("--takeover")
    if before.wait(60) != 0:
        raise SystemExit(f"FAILED: the daemon that made way ended with {before.returncode}")


def end_in_the_middle(moves, daemon, clients, rng, mode, took, kills):
    """Returns how many of the moves took effect."""
    before = moves.settled()
    connects = [c.connects for c in clients]
    moves.start(before, mode)
    time.sleep(rng.uniform(0, 1.5 * took))
    if kills:
        daemon.kill()
        daemon.start()
    else:
        takeover(daemon)
    daemon.wait_ready()
    after = moves.settled()
    wait_for_clients(clients, connects)
    return sum(after[name] != before[name] for name in after)


def run(daemon, directory, rng):
    moves = Moves(daemon)
    daemon.start()
    daemon.wait_ready()
    for pool in OTHER:
        daemon.vpool("create", pool, "--size", "1G", f"{directory}/{pool}")
    uris = []
    for i in range(VOLUMES):
        daemon.vpool("volume", "create", f"tank/v{i}", "--size", "64M")
        uris.append(daemon.vpool("attach", f"tank/v{i}", "--nbd", f"unix:{directory}/n{i}").strip())
        bulk_fill(uris[i], rng)
    digests = [bulk_digest(u) for u in uris]
    clients = [Client(i, u) for i, u in enumerate(uris)]
    for c in clients:
        c.start()
    wait_for_clients(clients, [0] * VOLUMES)
    took = {mode: moves_alone(moves, clients, mode) for mode in MODES}
    moved = 0
    for i in range(ROUNDS):
        mode = MODES[i % len(MODES)]
        moved += end_in_the_middle(moves, daemon, clients, rng, mode, took[mode], True)
    for mode in MODES:
        moved += end_in_the_middle(moves, daemon, clients, rng, mode, took[mode], False)
    clients_end(clients)
    if [bulk_digest(u) for u in uris] != digests:
        raise SystemExit("FAILED: the data are not what was written")
    print(f"{ROUNDS} kills and {len(MODES)} takeovers of {VOLUMES} moves, {moved} of which took effect; alone they took "
          f"{', '.join(f'{mode} {s:.2f} s' for mode, s in took.items())}; "
          f"{sum(c.connects for c in clients)} connections, {sum(c.verified for c in clients)} blocks verified")
    daemon.process.terminate()
    if daemon.process.wait(60) != 0:
        raise SystemExit(f"FAILED: the daemon ended with {daemon.process.returncode}")


if __name__ == "__main__":
    main(lambda daemon, rng: run(daemon, daemon.dir, rng))
