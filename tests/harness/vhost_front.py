"""A vhost-user front-end by hand: for what no proper application does."""

import array
import fcntl
import os
import socket
import struct

VERSION, REPLY, NEED_REPLY = 1, 4, 8
(GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE, SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE,
 SET_VRING_KICK, SET_VRING_CALL) = (1, 2, 3, 5, 8, 9, 10, 11, 12, 13)
SET_PROTOCOL_FEATURES, SET_VRING_ENABLE, GET_CONFIG = 16, 18, 24
VERSION_1, RING_PACKED, PROTOCOL_FEATURES = 1 << 32, 1 << 34, 1 << 30
REPLY_ACK, CONFIG = 1 << 3, 1 << 9
BASE = 0x10000  # where the memory is, in the addresses of this front-end


class FrontEnd:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self.memory = None
        self.kicks, self.calls = {}, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        for fd in [self.memory, *self.kicks.values(), *self.calls.values()]:
            if fd is not None:
                os.close(fd)

    def send(self, request, payload=b"", fds=(), flags=VERSION):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([struct.pack("<III", request, flags, len(payload)) + payload], ancillary)

    def reply(self):
        header = self._exactly(12)
        return self._exactly(struct.unpack("<III", header)[2])

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise ConnectionError("the worker closed the connection")
            data += part
        return data

    def ask(self, request, payload=b"", fds=()):
        self.send(request, payload, fds)
        return self.reply()

    def acknowledged(self, request, payload=b"", fds=()):
        self.send(request, payload, fds, VERSION | NEED_REPLY)
        assert struct.unpack("<Q", self.reply()) == (0,), request

    def closed(self):
        """Waits for the worker to end the connection."""
        try:
            while self.socket.recv(4096):
                pass
        except ConnectionError:
            pass
        return True

    def negotiate(self, features=VERSION_1):
        self.send(SET_OWNER)
        self.send(SET_PROTOCOL_FEATURES, struct.pack("<Q", REPLY_ACK))
        self.acknowledged(SET_FEATURES, struct.pack("<Q", features | PROTOCOL_FEATURES))

    def share(self, size=0x20000, seals=0):
        self.memory = os.memfd_create("front", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.memory, size)
        fcntl.fcntl(self.memory, fcntl.F_ADD_SEALS, seals)
        self.set_memory((BASE, self.memory))

    def set_memory(self, *regions):
        """Each is an address and a file, which is shared whole."""
        table = struct.pack("<II", len(regions), 0)
        for address, file in regions:
            table += struct.pack("<QQQQ", address, os.fstat(file).st_size, address, 0)
        self.acknowledged(SET_MEM_TABLE, table, [file for _, file in regions])

    def start_ring(self, index, size=256, base=0, parts=(0, 0x1000, 0x2000)):
        """Split or packed alike. `parts` are the offsets of descriptors, driver area and device area from the ring's start,
        by default each on a page of its own."""
        descriptors, driver, device = (BASE + index * 0x4000 + part for part in parts)
        self.acknowledged(SET_VRING_NUM, struct.pack("<II", index, size))
        self.acknowledged(SET_VRING_BASE, struct.pack("<II", index, base))
        self.acknowledged(SET_VRING_ADDR, struct.pack("<IIQQQQ", index, 0, descriptors, device, driver, 0))
        self.calls[index], self.kicks[index] = os.eventfd(0), os.eventfd(0)
        self.acknowledged(SET_VRING_CALL, struct.pack("<Q", index), [self.calls[index]])
        self.acknowledged(SET_VRING_KICK, struct.pack("<Q", index), [self.kicks[index]])
        self.acknowledged(SET_VRING_ENABLE, struct.pack("<II", index, 1))

    def stop_ring(self, index):
        return struct.unpack("<II", self.ask(GET_VRING_BASE, struct.pack("<II", index, 0)))[1]

    def running(self, features=VERSION_1):
        base = 0x8000 if features & RING_PACKED else 0
        self.negotiate(features)
        self.share()
        self.start_ring(0, base=base)
        self.start_ring(1, base=base)
        return self
