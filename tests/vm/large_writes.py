#!/usr/bin/env python3
"""large_writes.py DEVICE SEED STOP: large requests, one after the other, over the same 8 MiB.

Writes of 1 MiB begin at any sector. Discards and zeroes may be longer than a window of the daemon
(4 MiB). What a request changed is read back after it. Everything is read back after every eighth
request, and at the end: there it shows when a request of a daemon that is gone landed late.
Ends when the file STOP appears. Exit 1 with the first wrong byte.
"""

import fcntl
import mmap
import os
import random
import struct
import sys

MIB, SECTOR, BLOCK = 1 << 20, 512, 4096
REGION = 8 * MIB
BLKDISCARD, BLKZEROOUT = 0x1277, 0x127F

path, seed, stop = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rng = random.Random(seed)
noise = os.urandom(2 * MIB)
fd = os.open(path, os.O_RDWR | os.O_DIRECT)
seen, data = mmap.mmap(-1, REGION), mmap.mmap(-1, MIB)  # aligned, as O_DIRECT wants them
want = bytearray(REGION)
done = 0
print("begun", flush=True)


def write():
    first = rng.randrange((REGION - MIB) // SECTOR + 1) * SECTOR
    data[:] = noise[(at := rng.randrange(MIB)) : at + MIB]
    if os.pwrite(fd, data, first) != MIB:
        sys.exit(f"operation {done}: a short write")
    want[first : first + MIB] = data[:]
    return first, MIB


def clear(command, unit):
    """A discard or zeroes of whole units; a short range as often as a long one."""
    units = rng.randrange(1, rng.choice((MIB, REGION)) // unit)
    first = rng.randrange(REGION // unit - units) * unit
    fcntl.ioctl(fd, command, struct.pack("QQ", first, units * unit))
    want[first : first + units * unit] = bytes(units * unit)
    return first, units * unit


def verify(first, length):
    if os.preadv(fd, [memoryview(seen)[:length]], first) != length:
        sys.exit(f"operation {done}: a short read")
    if seen[:length] != want[first : first + length]:
        wrong = next(i for i in range(length) if seen[i] != want[first + i])
        sys.exit(
            f"operation {done} of seed {seed}: byte {first + wrong} is {seen[wrong]}, "
            f"not {want[first + wrong]}"
        )


while not os.path.exists(stop):
    done += 1
    kind = rng.random()
    if kind < 0.7:
        changed = write()
    elif kind < 0.85:
        changed = clear(BLKDISCARD, BLOCK)
    else:
        changed = clear(BLKZEROOUT, SECTOR)
    verify(*((0, REGION) if done % 8 == 0 else changed))
verify(0, REGION)
print(f"{done} operations")
