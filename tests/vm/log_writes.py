"""The log of dm-log-writes: what a disk would hold if the power went at any point of it.

The target logs a write when a flush that covers it has completed, or, if it is FUA, when it completes itself. So the
first N entries, applied in their order, are a disk that has lost all that was not durable at that point.
Format: Documentation/admin-guide/device-mapper/log-writes.rst, drivers/md/dm-log-writes.c.
"""
import os
import struct

MAGIC, VERSION = 0x6A736677736872, 1
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
COPY_BYTES = 4 << 20


class Entry:
    def __init__(self, log, header, data_at):
        sector, sectors, self.flags, length = struct.unpack_from("<QQQQ", header)
        self.offset, self.size, self.data_at = sector * log.sector, sectors * log.sector, data_at
        self.mark = header[32:32 + length].rstrip(b"\0").decode() if self.flags & MARK else None

    def is_barrier(self):
        return bool(self.flags & (FLUSH | FUA))


class Log:
    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY)
        magic, version, count, self.sector = struct.unpack("<QQQI", os.pread(self.fd, 28, 0))
        if magic != MAGIC or version != VERSION:
            raise ValueError(f"{path} holds no log of dm-log-writes")
        self.entries = []
        at = self.sector
        for _ in range(count):
            e = Entry(self, os.pread(self.fd, self.sector, at), at + self.sector)
            self.entries.append(e)
            at = e.data_at + (0 if e.flags & DISCARD else e.size)

    def marked(self, name):
        """The number of entries up to and with a mark."""
        return next(i for i, e in enumerate(self.entries) if e.mark == name) + 1

    def replay(self, disk, first, end):
        """Applies entries [first, end) to the file descriptor `disk`. What was discarded reads as noise."""
        for e in self.entries[first:end]:
            for done in range(0, e.size, COPY_BYTES):
                n = min(e.size - done, COPY_BYTES)
                data = b"\xdd" * n if e.flags & DISCARD else os.pread(self.fd, n, e.data_at + done)
                os.pwrite(disk, data, e.offset + done)
        os.fsync(disk)
