"""Volumes move between two daemons over a network that delays, loses and is cut (t_migrate_netem.sh): each daemon is in
a network namespace of its own, and the pair of devices between them has sch_netem. Clients, who come by unix sockets,
follow and verify each block (tests/integration/t_migrate_peer.py).
    netem.py DIRECTORY [long]      long: a cut that lasts for longer than a move waits, too"""
import os
import random
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
from t_migrate_peer import SEED, WAIT, Host, World, clients_end  # noqa: E402

PORT = 7300


def ip(*args):
    subprocess.run(["ip", *args], check=True)


class Netem:
    """vpool0 and vpool1, in the namespaces of these names, joined."""

    def __init__(self):
        for i in range(2):
            ip("netns", "add", f"vpool{i}")
        ip("link", "add", "vpool0", "netns", "vpool0", "type", "veth", "peer", "name", "vpool1", "netns", "vpool1")
        for i in range(2):
            ip("-n", f"vpool{i}", "address", "add", f"10.97.0.{i + 1}/24", "dev", f"vpool{i}")
            ip("-n", f"vpool{i}", "link", "set", f"vpool{i}", "up")
        self.made = False

    def is_now(self, *args, of=(0, 1)):
        for i in of:
            subprocess.run(["tc", "-n", f"vpool{i}", "qdisc", "change" if self.made else "add", "dev", f"vpool{i}", "root",
                            "netem", "limit", "10000", *args], check=True)
        self.made = True


class NetHost(Host):
    def __init__(self, directory, pool, number):
        super().__init__(directory, pool)
        self.namespace = f"vpool{number}"
        self.listen = self.peer = f"tcp:10.97.0.{number + 1}:{PORT}"
        with open(directory + "/conf", "w") as f:
            f.write('migrate: { listen = "%s"; tcp-bind = "any"; };\n' % self.listen)

    def start(self, *more):
        popen = subprocess.Popen
        try:
            subprocess.Popen = lambda args, **kw: popen(["ip", "netns", "exec", self.namespace, *args], **kw)
            super().start(*more)
        finally:
            subprocess.Popen = popen


class NoProxy:
    """There is nothing between the daemons but the network."""
    start = forget = heal = lambda self: None


class NetWorld(World):
    def __init__(self, directory, rng):
        super().__init__(directory, rng)
        self.hosts = [NetHost(os.path.join(directory, name), pool, i) for i, (name, pool) in enumerate((("a", "tank"), ("b", "silo")))]
        self.proxies = [NoProxy(), NoProxy()]


def undisturbed(w):
    def run(at, move, mode):
        began = time.monotonic()
        m = w.end_of(at, move)
        w.took[mode] = time.monotonic() - began
        if m["phase"] != "done":
            w.fail(f"{m}")
    return run


def cut(w, net, seconds, of, slow):
    """In the middle of the copy; it goes on afterwards, with its old connections or with new ones."""
    def run(at, move, _mode):
        end = time.monotonic() + WAIT
        while w.move_of(at, move)["phase"] == "preparing" and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(w.rng.uniform(0, 0.3))
        net.is_now("loss", "100%", of=of)
        time.sleep(seconds)
        net.is_now(*slow)
        m = w.end_of(at, move)
        if m["phase"] != "done" and seconds < 30:
            w.fail(f"{m}")
        print(f"  breaks: {m['breaks']}, {m['error']}", flush=True)
    return run


def run(w, net, is_long):
    slow = ("delay", "5ms", "1ms", "loss", "0.2%", "rate", "100mbit")
    net.is_now("delay", "1ms")
    w.start()
    for c in w.clients:
        c.pause = 0.02  # the machine is emulated: there is little time for anything else
    net.is_now(*slow)
    w.trial("delay, loss and a limited rate", "mirror", undisturbed(w), ("done",))
    w.trial("a cut of 12 seconds", "live", cut(w, net, 12, (0, 1), slow), ("done",))
    if is_long:
        w.trial("a cut of one second", "live", cut(w, net, 1, (0, 1), slow), ("done",))
        w.trial("a cut of one second in one direction", "mirror", cut(w, net, 1, (1,), slow), ("done",))
        w.trial("a cut of 90 seconds", "live", cut(w, net, 90, (0, 1), slow), ("stays",))
        w.trial("and it moves afterwards", "mirror", undisturbed(w), ("done",))
    clients_end(w.clients)
    print(f"{sum(c.connects for c in w.clients)} connections, {sum(c.verified for c in w.clients)} blocks verified")


def main():
    print(f"VPOOL_SEED={SEED}", flush=True)
    directory = sys.argv[1]
    for name in ("a", "b"):
        os.mkdir(os.path.join(directory, name))
    w = NetWorld(directory, random.Random(SEED))
    failed = True
    try:
        run(w, Netem(), "long" in sys.argv[2:])
        failed = False
    finally:
        for host in w.hosts:
            host.end(failed)


if __name__ == "__main__":
    main()
