#!/usr/bin/python3
# long: yes
"""Volumes move between two daemons, and what befalls them is rarer than in t_migrate_peer.py, which has the daemons,
the way between them, and clients that follow and verify: lost and unanswered tokens, a daemon that stands still for 30
s, one that comes back with an older copy of its disks, one that is taken over, moves against each other.

VPOOL_SEED repeats a run."""
import os
import random
import shutil
import signal
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from t_migrate_peer import MODES, SEED, SLOW, WAIT, World, stopped  # noqa: E402

STANDS_STILL = 3 if SLOW else 30  # seconds
LIMIT = ("--bandwidth", "4M")  # a move with it takes 12 s


def step(text):
    print(f"- {text}", flush=True)


def refused(w, out, text):
    if out.returncode == 0 or text not in out.stderr:
        w.fail(f"not refused with '{text}': {out.stdout}{out.stderr}")


def start(w, at, *args, volume="v"):
    here, there = w.hosts[at], w.hosts[1 - at]
    return here.tries("--json", "migrate", f"{here.pool}/{volume}", "--to", there.pool, "--peer", there.peer, *args)


def copying(w, at):
    """A slow move, in the middle of its copy."""
    out = start(w, at, *LIMIT)
    if out.returncode:
        w.fail(out.stderr)
    end = time.monotonic() + WAIT
    while not any(m["phase"] == "copying" and m["copied_bytes"] for m in w.hosts[at].moves()["migrations"]):
        if time.monotonic() > end:
            w.fail("it does not copy")
        time.sleep(0.02)


def stays(w, at):
    if w.settled() != at:
        w.fail("the volume has moved")
    w.check_bulk(at)
    for c in w.clients:
        if c.failure:
            w.fail(f"client: {c.failure}")


# ---- what is refused ------------------------------------------------------------------------------------------------


def taken(w):
    at = w.settled()
    here, there = w.hosts[at], w.hosts[1 - at]
    there.vpool("volume", "create", f"{there.pool}/v", "--size", "1M")
    refused(w, start(w, at), f"volume {there.pool}/v exists already")
    there.vpool("volume", "delete", f"{there.pool}/v")
    refused(w, start(w, at, "--deadline", "0"), "deadline")
    copying(w, at)
    refused(w, start(w, at), f"{here.pool}/v moves already")
    refused(w, start(w, 1 - at), f"volume {there.pool}/v moves already: from {here.pool}/v")
    refused(w, there.tries("volume", "create", f"{there.pool}/v", "--size", "1M"), "exists already")
    refused(w, there.tries("volume", "delete", f"{there.pool}/v"), "vpool migrate cancel")
    here.vpool("migrate", "cancel", f"{here.pool}/v")
    stays(w, at)
    step("a name that is taken there, the same move again, and the same volume the other way are refused")


def against_each_other(w):
    """Two volumes, each to where the other one was, under the same name in the end."""
    at = w.settled()
    here, there = w.hosts[at], w.hosts[1 - at]
    there.vpool("volume", "create", f"{there.pool}/x", "--size", "64M")
    connects = [c.connects for c in w.clients]
    for n in range(2):  # there, and back
        first, second = start(w, at if n == 0 else 1 - at), start(w, 1 - at if n == 0 else at, volume="x")
        if first.returncode or second.returncode:
            w.fail(first.stderr + second.stderr)
        end = time.monotonic() + WAIT
        while any(not m["ended"] for h in w.hosts for m in h.moves()["migrations"]):
            if time.monotonic() > end:
                w.fail("they do not end")
            time.sleep(0.02)
        names = [[v["name"] for v in h.json("volume", "list")["volumes"] if v["state"] == "online"] for h in (here, there)]
        if names != ([["x"], ["v"]] if n == 0 else [["v"], ["x"]]):
            w.fail(f"{names}")
        w.settled()
        w.check_clients(connects)
        connects = [c.connects for c in w.clients]
    there.vpool("volume", "delete", f"{there.pool}/x")
    step("two volumes move against each other, and back")


# ---- the token ------------------------------------------------------------------------------------------------------


def token_lost(w, message):
    """The message is lost once, with its connection. It is sent again."""
    def run(at, move, _mode):
        if w.end_of(at, move)["phase"] != "done" or not w.proxies[1 - at].lost.is_set():
            w.fail(f"{w.move_of(at, move)}")
        w.proxies[1 - at].heal()
    proxy = w.proxies[1 - w.settled()]
    proxy.loses, proxy.loses_once = message, True
    return run


def token_unanswered(w, replaced):
    """The volume has arrived, and the source hears nothing: it is in doubt there, until the network heals. Or until the
    other daemon comes back with disks that never heard of the move."""
    def run(at, move, _mode):
        here, there, proxy = w.hosts[at], w.hosts[1 - at], w.proxies[1 - at]
        m = w.end_of(at, move)
        if m["phase"] != "in doubt" or not here.moves()["in_doubt"]:
            w.fail(f"{m}")
        refused(w, here.tries("volume", "delete", f"{here.pool}/v"), "vpool migrate forget")
        if replaced:
            there.kill()
            shutil.copy(older, f"{there.dir}/disk")
            there.restart()
        proxy.heal()
    at = w.settled()
    there, proxy = w.hosts[1 - at], w.proxies[1 - at]
    older = f"{there.dir}/older"
    if replaced:
        keep_copy(there, older)
    proxy.silent_at = b"peer.arrive"
    return run


# ---- an older copy --------------------------------------------------------------------------------------------------


def keep_copy(host, path):
    host.process.terminate()
    host.process.wait(WAIT)
    shutil.copy(f"{host.dir}/disk", path)
    host.restart()


def replaced_while_it_copies(w):
    at = w.settled()
    there = w.hosts[1 - at]
    keep_copy(there, f"{there.dir}/older")
    copying(w, at)
    there.kill()
    shutil.copy(f"{there.dir}/older", f"{there.dir}/disk")
    there.restart()
    stays(w, at)
    if any(v["name"] == "v" for v in there.json("volume", "list")["volumes"]):
        w.fail("something is left there")
    step("a destination that comes back with an older copy of its disks has no part of the volume")


# ---- takeovers ------------------------------------------------------------------------------------------------------


def taken_over(w, which):
    def run(at, _move, mode):
        host = w.hosts[at if which == "source" else 1 - at]
        before = host.process
        w.moment(mode)
        host.start("--takeover")
        if before.wait(WAIT) != 0:
            w.fail("the daemon does not make way")
        host.wait_ready()
    return run


def timed(w, mode):
    """How long a move takes, for moments in the middle of one."""
    def run(at, move, _mode):
        began = time.monotonic()
        w.end_of(at, move)
        w.took[mode] = time.monotonic() - began
    return run


def run(w):
    w.start()
    for mode in MODES:
        w.trial("alone", mode, timed(w, mode), ("done",))
    taken(w)
    against_each_other(w)
    modes = MODES[SEED % 3:][:1] if SLOW else MODES
    for mode in modes:
        w.trial("the token is lost", mode, token_lost(w, b"peer.arrive"), ("done",))
        w.trial("its answer is lost", mode, token_lost(w, b'"verdict"'), ("done",))
    for mode in modes:
        for which in ("source", "destination"):
            w.trial(f"the {which} is taken over", mode, taken_over(w, which), ("done", "stays"))
    replaced_while_it_copies(w)
    if not SLOW:
        w.trial("the token is not answered", "live", token_unanswered(w, False), ("done",))
    w.trial("the token is not answered, and the other daemon has older disks then", "mirror", token_unanswered(w, True), ("stays",))
    for which, mode in (("source", "live"), ("destination", "mirror")):
        w.trial(f"the {which} stands still for {STANDS_STILL} s", mode, stopped(w, which, STANDS_STILL), ("done", "stays"))


def main():
    print(f"seed {SEED}: VPOOL_SEED={SEED} {sys.argv[0]}", flush=True)
    directory = tempfile.mkdtemp(prefix="vpool-test.")
    for name in ("a", "b"):
        os.mkdir(os.path.join(directory, name))
    w = World(directory, random.Random(SEED))
    failed = True
    try:
        run(w)
        failed = False
    finally:
        for host in w.hosts:
            if host.process and host.process.poll() is None:
                host.process.send_signal(signal.SIGCONT)
            host.end(failed)
        if not os.environ.get("VPOOL_KEEP"):
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
