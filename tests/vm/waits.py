#!/usr/bin/env python3
"""waits.py DEVICE STOP: writes, reads and flushes, each from a process of its own, until the file STOP appears.

Prints the longest wait of all in ms, and how many took longer than a second. What was written is read
back. Exit 1 when a request fails or reads something else.
"""

import mmap
import os
import sys
import time

BLOCK, WORKERS, SPAN = 4096, 8, 256
path, stop = sys.argv[1], sys.argv[2]


def work(number, out):
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    data, seen = mmap.mmap(-1, BLOCK), mmap.mmap(-1, BLOCK)
    longest, long_ones, n = 0.0, 0, 0
    while not os.path.exists(stop):
        at = (number * SPAN + n % SPAN) * BLOCK
        data[:] = (b"%08d%08d" % (number, n)) * (BLOCK // 16)
        for act in ("write", "read", "flush") if n % 8 == number else ("write", "read"):
            begun = time.monotonic()
            if act == "write":
                os.pwrite(fd, data, at)
            elif act == "read":
                os.preadv(fd, [seen], at)
                if seen[:] != data[:]:
                    os._exit(1)
            else:
                os.fdatasync(fd)
            took = time.monotonic() - begun
            longest = max(longest, took)
            long_ones += took > 1
        n += 1
    os.write(out, b"%d %d %d\n" % (longest * 1000, long_ones, n))
    os._exit(0)


from_child, to_parent = os.pipe()
for i in range(WORKERS):
    if os.fork() == 0:
        try:
            work(i, to_parent)
        finally:
            os._exit(1)
failed = sum(os.waitstatus_to_exitcode(os.wait()[1]) != 0 for _ in range(WORKERS))
os.close(to_parent)
rows = [list(map(int, line.split())) for line in os.fdopen(from_child)]
print(max(r[0] for r in rows), sum(r[1] for r in rows), sum(r[2] for r in rows))
sys.exit(1 if failed else 0)
