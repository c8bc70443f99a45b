"""What the benchmarks share: servers, and files that are written in full."""
import json, os, signal, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
HZ = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / HZ


class Server:
    """A process that listens on a unix socket."""

    def __init__(self, name, argv, sock, export="", log=None):
        self.name, self.sock, self.export, self.log = name, sock, export, log
        self.process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
        self.pid = self.process.pid

    def wait(self):
        deadline = time.monotonic() + 30
        while not os.path.exists(self.sock):
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{self.name} did not start:\n" + open(self.log.name, errors="replace").read()[-2000:])
            time.sleep(0.02)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Load:
    """A client that writes 4 KiB blocks at random, in windows. `rate`: writes a second, or "full"."""

    def __init__(self, build, sock, export, rate, *options):
        argv = [build + "/tests/bench/nbd_load", "--unix", sock, "--export", export, "--rw", "randwrite", "--runtime", "900", *options]
        if rate != "full":
            argv += ["--rate", rate]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def window(self):
        """The figures since the last call, or the start; None: the client has ended. When its volume leaves, its last
        figures are there without being asked for."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def fill(path, size):
    """A file of random bytes, written in full: nobody is measured against sparse blocks."""
    block = os.urandom(1 << 20)
    with open(path, "wb") as f:
        for _ in range(size >> 20):
            f.write(block)
        f.flush()
        os.fsync(f.fileno())
    return path
