#!/usr/bin/python3
"""A volume as a block device through the kernel's NBD client, which outlives the server.

    nbd_keep.py SOCKET EXPORT NUMBER [CONNECTIONS]

Makes /dev/nbdNUMBER by netlink, with a timeout for requests that lost their connection and a
dead_conn_timeout during which the kernel holds requests instead of failing them, then replaces
connections that end (NBD_CMD_RECONFIGURE). nbd-client of Debian can ask for neither. SIGTERM disconnects.
"""
import os
import select
import signal
import socket
import struct
import sys
import time

TIMEOUT_S = 2  # a request whose connection died is sent again on another one after this
DEAD_CONN_TIMEOUT_S = 60  # so long nobody sees an error

# linux/netlink.h, genetlink.h, nbd-netlink.h
NETLINK_GENERIC, GENL_ID_CTRL = 16, 16
NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR = 1, 4, 2
CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 3, 1, 2
NBD_CMD_CONNECT, NBD_CMD_DISCONNECT, NBD_CMD_RECONFIGURE = 1, 2, 3
INDEX, SIZE, BLOCK_SIZE, TIMEOUT, SERVER_FLAGS, SOCKETS, DEAD_CONN = 1, 2, 3, 4, 5, 7, 8
NLA_F_NESTED = 0x8000

# The NBD protocol
OPT_MAGIC, OPT_GO, REPLY_ACK, REPLY_INFO, INFO_EXPORT = 0x49484156454F5054, 7, 1, 3, 0


def attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


class Netlink:
    def __init__(self):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
        self.socket.bind((0, 0))
        self.sequence = 0
        reply = self.call(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, attribute(CTRL_ATTR_FAMILY_NAME, b"nbd\0"))
        at = 20
        while at < len(reply):
            size, kind = struct.unpack_from("=HH", reply, at)
            if kind == CTRL_ATTR_FAMILY_ID:
                self.nbd = struct.unpack_from("=H", reply, at + 4)[0]
            at += (size + 3) & ~3

    def call(self, family, command, attributes):
        """Sends a request and waits for what answers it; an error is an OSError."""
        self.sequence += 1
        body = struct.pack("=BBH", command, 1, 0) + attributes
        self.socket.send(struct.pack("=IHHII", 16 + len(body), family, NLM_F_REQUEST | NLM_F_ACK, self.sequence, 0) + body)
        reply = b""
        while True:
            data = self.socket.recv(65536)
            while data:
                size, kind, _, sequence, _ = struct.unpack_from("=IHHII", data)
                if sequence == self.sequence and kind == NLMSG_ERROR:
                    error = -struct.unpack_from("=i", data, 16)[0]
                    if error:
                        raise OSError(error, os.strerror(error))
                    return reply
                if sequence == self.sequence:
                    reply = data[:size]
                data = data[(size + 3) & ~3:]

    def connect(self, number, size, flags, sockets):
        self.call(self.nbd, NBD_CMD_CONNECT,
                  attribute(INDEX, struct.pack("=I", number)) + attribute(SIZE, struct.pack("=Q", size)) +
                  attribute(BLOCK_SIZE, struct.pack("=Q", 4096)) + attribute(SERVER_FLAGS, struct.pack("=Q", flags)) +
                  attribute(TIMEOUT, struct.pack("=Q", TIMEOUT_S)) +
                  attribute(DEAD_CONN, struct.pack("=Q", DEAD_CONN_TIMEOUT_S)) + self.sockets(sockets))

    def reconfigure(self, number, sockets):
        self.call(self.nbd, NBD_CMD_RECONFIGURE, attribute(INDEX, struct.pack("=I", number)) + self.sockets(sockets))

    def disconnect(self, number):
        self.call(self.nbd, NBD_CMD_DISCONNECT, attribute(INDEX, struct.pack("=I", number)))

    @staticmethod
    def sockets(sockets):
        items = b"".join(attribute(NLA_F_NESTED | 1, attribute(1, struct.pack("=I", s.fileno()))) for s in sockets)
        return attribute(NLA_F_NESTED | SOCKETS, items)


def exactly(s, size):
    data = b""
    while len(data) < size:
        got = s.recv(size - len(data))
        if not got:
            raise ConnectionError("the server hung up")
        data += got
    return data


def connection(path, export):
    """A connection in the transmission phase: (socket, size, flags)."""
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    _, _, server_flags = struct.unpack(">QQH", exactly(s, 18))
    s.sendall(struct.pack(">I", server_flags & 3))
    name = export.encode()
    s.sendall(struct.pack(">QIII", OPT_MAGIC, OPT_GO, 6 + len(name), len(name)) + name + bytes(2))
    size = flags = None
    while True:
        _, _, kind, length = struct.unpack(">QIII", exactly(s, 20))
        data = exactly(s, length)
        if kind == REPLY_ACK:
            return s, size, flags
        if kind != REPLY_INFO:
            raise ConnectionError(f"NBD_OPT_GO is answered with {kind:#x}: {data!r}")
        if struct.unpack_from(">H", data)[0] == INFO_EXPORT:
            size, flags = struct.unpack_from(">QH", data, 2)


def again(path, export):
    """The same, from a server that may not be there yet."""
    while True:
        try:
            return connection(path, export)[0]
        except OSError:
            time.sleep(0.05)


def main():
    path, export, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    netlink = Netlink()
    first = [connection(path, export) for _ in range(int(sys.argv[4]) if len(sys.argv) > 4 else 1)]
    netlink.connect(number, first[0][1], first[0][2], [c[0] for c in first])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    poll = select.poll()
    live = {}
    for c in first:
        live[c[0].fileno()] = c[0]
        poll.register(c[0], select.POLLRDHUP)
    print("connected", flush=True)
    try:
        while True:
            for fd, _ in poll.poll():
                poll.unregister(fd)
                dead = live.pop(fd)
                new = again(path, export)
                while True:  # the kernel may not have seen yet that the old connection is dead
                    try:
                        netlink.reconfigure(number, [new])
                        break
                    except OSError:
                        time.sleep(0.05)
                dead.close()
                live[new.fileno()] = new
                poll.register(new, select.POLLRDHUP)
                print("reconnected", flush=True)
    finally:
        netlink.disconnect(number)


main()
