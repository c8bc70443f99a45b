#!/usr/bin/python3
# threads: no
"""A virtual machine and its disk move between two daemons, with the hand-shake that docs/migration.md describes.

The guest is a boot sector. It writes one block after the other through the BIOS, in a circle, each with a number that is
one higher than the last one's, and goes on when the write before has ended. So when it is stopped the circle holds the
last numbers without a gap, wherever it has written them. It stops for good at the first error."""
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from t_sigkill import BIN, SLOW, Daemon, nbd  # noqa: E402

WAIT = 120 if SLOW else 60
BLOCK, BLOCKS, FIRST = 4096, 256, 256  # the circle: of so many blocks, from this one on
MACHINES = []  # processes; none is left over
GUEST = r"""
    .code16
    .globl _start
_start:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    movb %dl, drive
    cld
next:
    incl number
    movl number, %eax
    movw $0x8000, %di
    movw $1024, %cx
    rep stosl
    movl number, %eax
    andl $255, %eax
    addl $256, %eax
    shll $3, %eax
    movl %eax, lba
    movw $packet, %si
    movb drive, %dl
    movw $0x4300, %ax
    int $0x13
    jnc next
over:
    hlt
    jmp over
    .balign 4
packet:
    .byte 16, 0
    .word 8, 0x8000, 0
lba:
    .long 0, 0
number:
    .long 0
drive:
    .byte 0
    .org 510
    .word 0xaa55
"""


def check(what, condition):
    if not condition:
        raise SystemExit(f"FAILED: {what}")
    print("-", what, flush=True)


def wait_for(what, condition):
    end = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"FAILED: {what}: not within {WAIT} s")
        time.sleep(0.02)
    print("-", what, flush=True)


class Host(Daemon):
    def __init__(self, directory, pool):
        self.pool, self.listen = pool, f"unix:{directory}/peer"
        super().__init__(directory, 'migrate: { listen = "%s"; };\n' % self.listen)
        self.uri = f"nbd+unix:///{pool}/vm?socket={directory}/vm"
        self.start()
        self.wait_ready()
        with open(directory + "/disk", "wb") as f:
            f.truncate(256 << 20)
        self.vpool("create", pool, directory + "/disk")

    def attach(self):
        self.vpool("attach", f"{self.pool}/vm", "--nbd", f"unix:{self.dir}/vm")

    def json(self, *args):
        return json.loads(self.vpool("--json", *args))

    def moves(self):
        return self.json("migrate", "status")["migrations"]

    def is_ready(self):
        return any(m.get("ready") for m in self.moves())

    def fails(self, *args):
        return subprocess.run([BIN + "/vpool", "-s", self.socket, *args], capture_output=True, text=True).returncode == 1

    def handle(self):
        h = nbd.NBD()
        h.connect_uri(self.uri)
        return h


class Machine:
    """QEMU; with `incoming` it waits for the state of another one."""

    def __init__(self, host, name, incoming=False):
        self.path, self.incoming = f"{host.dir}/{name}", f"unix:{host.dir}/{name}.state"
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-machine", "pc,accel=tcg", "-m", "32", "-nodefaults", "-display", "none", "-no-reboot",
             "-qmp", f"unix:{self.path},server=on,wait=off", "-drive", f"if=virtio,format=raw,cache=none,file={host.uri}",
             *(["-incoming", "defer"] if incoming else [])])
        MACHINES.append(self.process)
        end = time.monotonic() + WAIT
        while True:
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(self.path)
                break
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise SystemExit("FAILED: qemu does not start") from None
                time.sleep(0.05)
        self.socket.settimeout(WAIT)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self.call("qmp_capabilities")
        self.call("migrate-set-capabilities", capabilities=[{"capability": "pause-before-switchover", "state": True}])
        if incoming:
            self.call("migrate-incoming", uri=self.incoming)

    def call(self, command, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "error" in answer:
                raise SystemExit(f"FAILED: {command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def status(self):
        return self.call("query-status")["status"]

    def migration(self):
        return self.call("query-migrate").get("status")

    def quit(self):
        self.call("quit")
        self.process.wait(WAIT)
        self.socket.close()


def numbers(host):
    """What the circle holds. Zero: never written."""
    h = host.handle()
    data = h.pread(BLOCKS * BLOCK, FIRST * BLOCK)
    h.shutdown()
    found = []
    for i in range(BLOCKS):
        words = set(struct.unpack("<1024I", data[i * BLOCK:(i + 1) * BLOCK]))
        if len(words) != 1:
            raise SystemExit(f"FAILED: block {i} is torn: {sorted(words)[:4]}")
        found.append(words.pop())
    return found


def is_whole(found):
    last = max(found)
    return all(n == last - (last - i) % BLOCKS for i, n in enumerate(found))


def boot_sector(directory):
    with open(directory + "/guest.S", "w") as f:
        f.write(GUEST)
    subprocess.run(["as", "--32", "-o", directory + "/guest.o", directory + "/guest.S"], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", directory + "/guest", directory + "/guest.o"],
                   check=True)
    return open(directory + "/guest", "rb").read()


def install(host):
    sector = boot_sector(host.dir)
    assert len(sector) == 512
    host.vpool("volume", "create", f"{host.pool}/vm", "--size", "64M")
    host.attach()
    h = host.handle()
    h.pwrite(sector, 0)
    for at in range(16 << 20, 48 << 20, 1 << 20):  # what makes a move last
        h.pwrite(os.urandom(1 << 20), at)
    h.flush()
    h.shutdown()


def disk_begins(source, target):
    """The disk is on its way, and the other host has a machine with a disk that waits."""
    source.vpool("migrate", f"{source.pool}/vm", "--to", target.pool, "--peer", target.listen, "--mode", "mirror", "--await-guest", "600")
    target.attach()
    return Machine(target, "there", incoming=True)


def state_moves(here, there):
    here.call("migrate", uri=there.incoming)
    wait_for("the machine is paused before its switch", lambda: here.migration() == "pre-switchover")


def test_moves(source, target):
    here = Machine(source, "here")
    wait_for("the guest has written all of its circle", lambda: min(numbers(source)) > 0)
    there = disk_begins(source, target)
    wait_for("the disk is ready", source.is_ready)
    before = max(numbers(source))
    time.sleep(1)
    check("it waits while the guest writes", source.is_ready() and max(numbers(source)) > before)
    state_moves(here, there)
    found = numbers(source)
    check("the guest is stopped, and its circle is whole", is_whole(found) and found == numbers(source))
    said = source.vpool("migrate", "guest-paused", f"{source.pool}/vm")
    check(f"the disk has switched: {said.strip()}", said.startswith("switched"))
    check("it is the same disk there", numbers(target) == found)
    here.call("migrate-continue", state="pre-switchover")
    wait_for("the machine has moved", lambda: here.migration() == "completed" and there.status() == "running")
    here.quit()
    wait_for("it goes on there", lambda: max(numbers(target)) > max(found) + BLOCKS)
    wait_for("the disk is gone here", lambda: source.json("volume", "list")["volumes"] == [])
    return there


def test_is_given_up(source, target, here):
    """The disk's move is cancelled while the guest is paused: the guest goes on where it was."""
    there = disk_begins(source, target)
    wait_for("the disk is ready to go back", source.is_ready)
    state_moves(here, there)
    found = numbers(source)
    source.vpool("migrate", "cancel", f"{source.pool}/vm")
    here.call("migrate_cancel")
    wait_for("the machine runs where it was", lambda: here.status() == "running")
    there.process.wait(WAIT)  # its state did not come
    check("nothing is left there", target.json("volume", "list")["volumes"] == []
          and target.json("attachments")["attachments"] == [])
    check("nothing waits for a guest any more", source.fails("migrate", "guest-paused", f"{source.pool}/vm"))
    wait_for("it goes on", lambda: max(numbers(source)) > max(found) + BLOCKS)
    here.call("stop")
    check("its circle is whole", is_whole(numbers(source)))
    here.quit()


def main():
    hosts = []
    failed = True
    try:
        for pool in ("tank", "silo"):
            hosts.append(Host(tempfile.mkdtemp(prefix="vpool-test."), pool))
        install(hosts[0])
        machine = test_moves(*hosts)
        test_is_given_up(hosts[1], hosts[0], machine)
        failed = False
    finally:
        for m in MACHINES:
            if m.poll() is None:
                m.kill()
                m.wait()
        for h in hosts:
            h.end(failed)


if __name__ == "__main__":
    main()
