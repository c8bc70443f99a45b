"""What tests/bench/move compares: daemons that a volume, or an image, moves within, or between."""
import json, os, shutil, socket, subprocess, sys, time

from peers import cpu_seconds, fill

PORT = 17300  # of the first daemon; the run has the loopback interface of its own


class Vpool:
    """A volume between two pools of one daemon, or of two: `between` is "pools", "unix" or "tcp"."""

    name = "vpool"

    def __init__(self, bench, between):
        self.b, self.between, self.at, self.to = bench, between, "left", "right"
        hosts = ("left", "right") if between != "pools" else ("one",)
        self.servers = [self.start(name) for name in hosts]
        for pool in (self.at, self.to):
            self.cmd(pool, "create", pool, fill(self.path(pool + ".disk"), bench.size * 5 // 4 + (128 << 20)), "--force")
        self.cmd("left", "volume", "create", "left/v", "--size", str(bench.size))
        self.serve()
        bench.run("nbdcopy", "--flush", bench.image, self.client_uri())

    # ---- daemons

    def path(self, name):
        return self.b.path("v-" + name)

    def host(self, pool):
        return pool if self.between != "pools" else "one"

    def listen(self, pool):
        return f"unix:{self.path(pool)}/peer" if self.between == "unix" else f"tcp:127.0.0.1:{PORT + (pool == 'right')}"

    def start(self, name):
        home = self.path(name)
        os.makedirs(home + "/state")
        with open(home + "/conf", "w") as f:
            f.write("import-wait = 0;\n" + ('migrate: { listen = "%s"; };\n' % self.listen(name) if self.between != "pools" else ""))
        argv = [self.b.build + "/vpoold", "-c", home + "/conf", "-s", home + "/s", "--state-dir", home + "/state", "--foreground"]
        return self.b.start("vpoold " + name, argv, home + "/s")

    def cmd(self, pool, *argv):
        done = subprocess.run([self.b.build + "/vpool", "-s", self.path(self.host(pool)) + "/s", *argv], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"vpool {' '.join(argv)}: {done.stdout}{done.stderr}")
        return done.stdout

    def cpu(self):
        return sum(cpu_seconds(s.pid) for s in self.servers)

    # ---- clients

    def serve(self):
        """A client finds it at self.sock. Within a daemon that stays so."""
        self.sock, self.export = self.path(self.host(self.at)) + "/n", self.at + "/v"
        self.cmd(self.at, "attach", self.export, "--nbd", "unix:" + self.sock)

    def client_uri(self):
        return f"nbd+unix:///{self.export}?socket={self.sock}"

    def client_options(self):
        return ("--follows",) if self.between != "pools" else ()

    def copy_uris(self):
        """What nbdcopy copies: the volume, to where a move sends its data."""
        self.cmd(self.to, "volume", "create", self.to + "/copy", "--size", str(self.b.size))
        if self.between == "tcp":
            address, uri = f"tcp:127.0.0.1:{PORT + 9}", f"nbd://127.0.0.1:{PORT + 9}/{self.to}/copy"
        else:
            sock = self.path(self.host(self.to)) + "/c"
            address, uri = "unix:" + sock, f"nbd+unix:///{self.to}/copy?socket={sock}"
        self.cmd(self.to, "attach", self.to + "/copy", "--nbd", address)
        return self.client_uri(), uri

    def copied(self):
        self.cmd(self.to, "detach", self.to + "/copy", "--all")
        self.cmd(self.to, "volume", "delete", self.to + "/copy")
        self.jobs_end()  # its space comes back

    # ---- moves

    def move(self, *options):
        peer = () if self.between == "pools" else ("--peer", self.listen(self.to))
        done = json.loads(self.cmd(self.at, "migrate", self.at + "/v", "--to", self.to, *peer, *options, "--wait", "--json"))
        self.at, self.to = self.to, self.at
        copied = done["copied_bytes"] + done["mirrored_bytes"]
        return {"bytes": copied, "pause_ms": done["frozen_ns"] / 1e6}

    def settle(self):
        if self.between != "pools":
            self.serve()
        self.jobs_end()

    def jobs_end(self):
        while any(j["state"] == "running" for p in (self.at, self.to) for j in json.loads(self.cmd(p, "jobs", "--json"))["jobs"]):
            time.sleep(0.05)


class Daemon:
    """One qemu-storage-daemon, over QMP. It has one NBD server, for clients or for the other daemon."""

    def __init__(self, bench, name):
        self.b, self.name, self.events = bench, name, []
        self.sock, self.peer, qmp = (bench.path(f"q-{name}.{kind}") for kind in ("nbd", "peer", "qmp"))
        argv = [bench.a.qemu, "--chardev", f"socket,path={qmp},server=on,wait=off,id=c", "--monitor", "chardev=c"]
        self.pid = bench.start("qemu-storage-daemon " + name, argv, qmp).pid
        self.stream = socket.socket(socket.AF_UNIX)
        self.stream.connect(qmp)
        self.lines = self.stream.makefile()
        json.loads(self.lines.readline())
        self.call("qmp_capabilities")

    def call(self, command, may_fail=False, **args):
        args = {k.replace("_", "-"): v for k, v in args.items()}
        self.stream.sendall(json.dumps({"execute": command, "arguments": args}).encode() + b"\n")
        while True:
            answer = json.loads(self.lines.readline())
            if "event" in answer:
                self.events.append(answer)
            elif "return" in answer or may_fail:
                return answer.get("return")
            else:
                sys.exit(f"{command}: {answer}")

    def wait_event(self, wanted):
        while True:
            for e in self.events:
                if wanted(e):
                    self.events.remove(e)
                    return
            answer = json.loads(self.lines.readline())
            if "event" in answer:
                self.events.append(answer)

    def wait_status(self, *status):
        self.wait_event(lambda e: e["event"] == "JOB_STATUS_CHANGE" and e["data"]["status"] in status)

    def listen(self, address):
        rest = {k: v for k, v in address.items() if k != "type"}
        self.call("nbd-server-start", addr={"type": address["type"], "data": rest}, max_connections=8)

    def node(self, name):
        path = self.b.path(f"q-{name}.raw")
        if not os.path.exists(path):
            with open(path, "wb") as f:
                f.truncate(self.b.size)
        self.call("blockdev-add", driver="raw", node_name=name,
                  file={"driver": "file", "filename": path, "aio": "io_uring", "cache": {"direct": True}, "discard": "unmap"})

    def forget(self, name):
        self.call("blockdev-del", node_name=name)
        os.unlink(self.b.path(f"q-{name}.raw"))

    def export(self, node, name):
        self.call("block-export-add", type="nbd", id=name, node_name=node, name=name, writable=True)

    def end_export(self, name):
        self.events.clear()
        self.call("block-export-del", id=name, mode="hard")
        self.wait_event(lambda e: e["event"] == "BLOCK_EXPORT_DELETED")

    def mirror(self, node, target):
        """Background until it is ready, then write-blocking, then over. What it copied, and how long the hand-over took."""
        self.events.clear()
        self.call("blockdev-mirror", job_id="m", device=node, target=target, sync="full", granularity=4096, copy_mode="background",
                  auto_dismiss=False)
        self.wait_status("ready")
        self.call("block-job-change", True, id="m", type="mirror", copy_mode="write-blocking")
        time.sleep(0.05)
        job = [j for j in self.call("query-block-jobs") if j["device"] == "m"][0]
        since = time.monotonic()
        self.call("job-complete", id="m")
        self.wait_status("concluded")
        pause_ms = (time.monotonic() - since) * 1e3
        self.call("job-dismiss", id="m")
        return {"bytes": job["offset"], "pause_ms": pause_ms}


class Qemu:
    """An image between two files of one daemon."""

    name = "qemu-storage-daemon"

    def __init__(self, bench):
        self.b, self.at, self.to, self.export = bench, "left", "right", "v"
        shutil.copyfile(bench.image, bench.path("q-left.raw"))
        self.daemon = Daemon(bench, "one")
        self.sock = self.daemon.sock
        self.daemon.listen({"type": "unix", "path": self.sock})
        self.daemon.node("left")
        self.daemon.export("left", "v")

    def cpu(self):
        return cpu_seconds(self.daemon.pid)

    def client_options(self):
        return ()

    def copy_uris(self):
        self.daemon.node(self.to)
        self.daemon.export(self.to, "copy")
        return tuple(f"nbd+unix:///{e}?socket={self.sock}" for e in ("v", "copy"))

    def copied(self):
        self.daemon.end_export("copy")
        self.daemon.forget(self.to)

    def move(self):
        self.daemon.node(self.to)
        done = self.daemon.mirror(self.at, self.to)
        self.at, self.to = self.to, self.at
        return done

    def settle(self):
        if os.path.exists(self.b.path(f"q-{self.to}.raw")):
            self.daemon.forget(self.to)


class QemuPair:
    """An image between two daemons: mirrored to an export of the other one. From then on clients are served there."""

    name = "qemu-storage-daemon"

    def __init__(self, bench, between):
        self.b, self.between, self.export, self.moved = bench, between, "v", False
        shutil.copyfile(bench.image, bench.path("q-left.raw"))
        self.at, self.to = Daemon(bench, "left"), Daemon(bench, "right")
        self.at.node("left")
        self.serve()

    def serve(self):
        self.sock = self.at.sock
        self.at.listen({"type": "unix", "path": self.sock})
        self.at.export(self.at.name, "v")

    def cpu(self):
        return cpu_seconds(self.at.pid) + cpu_seconds(self.to.pid)

    def client_options(self):
        return ()

    def peer(self):
        if self.between == "unix":
            return {"type": "unix", "path": self.to.peer}
        return {"type": "inet", "host": "127.0.0.1", "port": str(PORT + 5)}

    def offer(self, name):
        """The other daemon takes an image."""
        self.to.node(self.to.name)
        self.to.listen(self.peer())
        self.to.export(self.to.name, name)

    def copy_uris(self):
        self.offer("copy")
        to = f"nbd+unix:///copy?socket={self.to.peer}" if self.between == "unix" else f"nbd://127.0.0.1:{PORT + 5}/copy"
        return f"nbd+unix:///v?socket={self.sock}", to

    def copied(self):
        self.to.end_export("copy")
        self.to.call("nbd-server-stop")
        self.to.forget(self.to.name)

    def move(self):
        self.offer("v")
        self.at.call("blockdev-add", driver="nbd", node_name="remote", server=self.peer(), export="v")
        done = self.at.mirror(self.at.name, "remote")
        self.moved = True
        return done

    def settle(self):
        """Clients have gone: both daemons change their parts."""
        if not self.moved:
            return
        self.at.end_export("v")
        self.at.call("nbd-server-stop")
        self.at.call("blockdev-del", node_name="remote")
        self.at.forget(self.at.name)
        self.to.end_export("v")
        self.to.call("nbd-server-stop")
        self.at, self.to, self.moved = self.to, self.at, False
        self.serve()
