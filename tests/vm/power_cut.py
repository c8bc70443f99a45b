#!/usr/bin/python3
"""Power cuts at the flushes of a pool's disk, and what must be there afterwards (P1, P2, P3, P9).

    power_cut.py write DEVICE DIRECTORY        a load whose progress is marked in the log of dm-log-writes
    power_cut.py check LOG SPARE CUTS          replays the log up to some CUTS points, imports the pool, compares

The load overwrites and extends DEVICE with blocks that carry {number of the write, block}, now and then followed by
fdatasync and a mark: all writes up to that number are durable. Between them it makes files with fsync. Both
halves know the same plan from VPOOL_SEED. After a cut a block shows its last durable write or a later one, whole.
"""
import json
import mmap
import os
import random
import struct
import subprocess
import sys

from log_writes import Log

SEED = int(os.environ.get("VPOOL_SEED", "1"))
BLOCK, BLOCKS, WRITES, FILES = 4096, 2048, 160, 16
LOGGED, CUT = "logged", "cut"
RECORDS, FILE_SYSTEM = ("tank/r", "/dev/ublkb5"), ("tank/f", "/dev/ublkb6")
POOL_SECTORS = 1 << 21


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"FAILED: {' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def plan():
    """The writes: (number, first block, blocks, synced after it)."""
    rng = random.Random(SEED)
    for number in range(1, WRITES + 1):
        count = rng.choice((1, 1, 1, 2, 8, 32))
        yield number, rng.randrange(BLOCKS - count), count, rng.random() < 0.3 or number == WRITES


def content(number, block):
    return struct.pack("<QQ", number, block) * (BLOCK // 16) if number else bytes(BLOCK)


def file_content(number):
    rng = random.Random(f"{SEED}/{number}")
    return struct.pack("<Q", rng.randrange(1 << 63)) * rng.randrange(1000, 20000)


def mark(text):
    run("dmsetup", "message", LOGGED, "0", "mark", text)


def write(device, directory):
    fd = os.open(device, os.O_RDWR | os.O_DIRECT)
    buffer = mmap.mmap(-1, 32 * BLOCK)
    for number, first, count, synced in plan():
        for i in range(count):
            buffer[i * BLOCK:(i + 1) * BLOCK] = content(number, first + i)
        os.pwrite(fd, memoryview(buffer)[:count * BLOCK], first * BLOCK)
        if synced:
            os.fdatasync(fd)
            mark(f"write:{number}")
        if number % (WRITES // FILES) == 0:
            name = number // (WRITES // FILES)
            with open(f"{directory}/{name}", "wb") as f:
                f.write(file_content(name))
                f.flush()
                os.fsync(f.fileno())
            mark(f"file:{name}")


def last_mark(entries, word):
    return max((int(e.mark.split(":")[1]) for e in entries if e.mark and e.mark.startswith(word + ":")), default=0)


def check_records(entries, where):
    durable = last_mark(entries, "write")
    allowed = [{0} for _ in range(BLOCKS)]
    for number, first, count, _ in plan():
        for block in range(first, first + count):
            if number <= durable:
                allowed[block] = {number}
            else:
                allowed[block].add(number)
    with open(RECORDS[1], "rb") as f:
        for block in range(BLOCKS):
            data = f.read(BLOCK)
            number = struct.unpack_from("<Q", data)[0]
            if data != content(number, block) or number not in allowed[block]:
                raise SystemExit(f"FAILED: {where}: block {block} shows write {number}, not one of {sorted(allowed[block])}"
                                 if data == content(number, block) else f"FAILED: {where}: block {block} is mixed: {data[:32]!r}")
    return durable


def check_files(entries, where):
    run("mount", FILE_SYSTEM[1], "/mnt/v")
    durable = last_mark(entries, "file")
    for name in range(1, durable + 1):
        with open(f"/mnt/v/{name}", "rb") as f:
            if f.read() != file_content(name):
                raise SystemExit(f"FAILED: {where}: file {name} differs")
    run("umount", "/mnt/v")
    run("fsck.ext4", "-fn", FILE_SYSTEM[1])
    return durable


def attachments():
    return {a["volume"]: a for a in json.loads(run("vpool", "--json", "attachments"))["attachments"]}


def check_cut(log, cut, where):
    """Looks at the replayed disk through a snapshot, so that it stays what it is for the next cut."""
    entries = log.entries[:cut]
    run("dmsetup", "create", CUT, "--table", f"0 {POOL_SECTORS} snapshot {sys.argv[3]} /dev/ram0 N 16")
    run("vpool", "import", "tank", "-d", f"/dev/mapper/{CUT}")
    for volume in json.loads(run("vpool", "--json", "volume", "list", "tank"))["volumes"]:
        if volume["state"] != "online":
            raise SystemExit(f"FAILED: {where}: {volume}")
    serving = attachments()
    for volume, _ in (RECORDS, FILE_SYSTEM):
        if serving[volume]["state"] != "serving":
            raise SystemExit(f"FAILED: {where}: {serving[volume]}")
    found = check_records(entries, where), check_files(entries, where)
    for volume, _ in (RECORDS, FILE_SYSTEM):
        run("vpool", "detach", volume)
    run("vpool", "export", "tank")
    run("dmsetup", "remove", CUT)
    print(f"  {where}: write {found[0]}, file {found[1]}")


def choose(log, cuts):
    """Where to cut, between the marks: mostly right after a flush or FUA write, spread evenly; now and then anywhere,
    where a part of what the next flush will cover has reached the disk."""
    first, end = log.marked("ready"), log.marked("done")
    barriers = [i + 1 for i in range(first, end) if log.entries[i].is_barrier()]
    rng = random.Random(SEED)
    anywhere = {rng.randrange(first, end) for _ in range(cuts // 4)}
    step = max(1, len(barriers) // (cuts - cuts // 4))
    chosen = sorted({*barriers[rng.randrange(step)::step], *anywhere, end})
    print(f"  {end - first} entries, {len(barriers)} flushes and FUA writes, {len(chosen)} cuts, seed {SEED}")
    return chosen


def check(path, spare, cuts):
    log = Log(path)
    disk = os.open(spare, os.O_RDWR)
    done = 0
    for cut in choose(log, cuts):
        log.replay(disk, done, cut)
        done = cut
        check_cut(log, cut, f"cut after entry {cut}")


if sys.argv[1] == "write":
    write(sys.argv[2], sys.argv[3])
else:
    check(sys.argv[2], sys.argv[3], int(sys.argv[4]))
