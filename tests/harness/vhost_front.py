"""A vhost-user front-end in Python: messages, memory in several regions, the buffer of in-flight descriptors. vrings.py has the
rings, and pod.py combines both into a front-end that exchanges frames."""

import array
import fcntl
import mmap
import os
import socket
import struct

VERSION, REPLY, NEED_REPLY = 1, 4, 8
(GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE, SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE,
 SET_VRING_KICK, SET_VRING_CALL) = (1, 2, 3, 5, 8, 9, 10, 11, 12, 13)
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, SET_VRING_ENABLE, GET_CONFIG = 15, 16, 18, 24
GET_INFLIGHT_FD, SET_INFLIGHT_FD = 31, 32
VERSION_1, RING_PACKED, PROTOCOL_FEATURES = 1 << 32, 1 << 34, 1 << 30
MERGEABLE, INDIRECT, EVENT_INDEX = 1 << 15, 1 << 28, 1 << 29
MAC_ADDRESS, LINK_STATUS, HOST_TSO4, CHECKSUM = 1 << 5, 1 << 16, 1 << 11, 1 << 0
REPLY_ACK, CONFIG, INFLIGHT = 1 << 3, 1 << 9, 1 << 12
BASE = 0x10000  # where the memory is, in this front-end's addresses


class Memory:
    """The memory that a front-end shares: files, each mapped here and known to the back-end by an address."""

    def __init__(self):
        self._regions = {}   # address: (size, file, mapping, its words)

    def add(self, address, size, seals=0):
        file = os.memfd_create("front", os.MFD_ALLOW_SEALING)
        os.ftruncate(file, size)
        self.adopt(address, file)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)

    def adopt(self, address, file):
        """Adds a file to the memory; it replaces the one at that address."""
        self.remove(address)
        mapping = mmap.mmap(file, 0)
        self._regions[address] = len(mapping), file, mapping, memoryview(mapping).cast("H")

    def remove(self, address):
        if address in self._regions:
            _, file, mapping, words = self._regions.pop(address)
            words.release()
            mapping.close()
            os.close(file)

    def close(self):
        for address in list(self._regions):
            self.remove(address)

    def table(self):
        return [(address, file) for address, (_, file, _, _) in self._regions.items()]

    def at(self, address):
        """The mapping that contains the address, and the offset in it."""
        for start, (size, _, mapping, _) in self._regions.items():
            if start <= address < start + size:
                return mapping, address - start
        raise AssertionError(f"{address:#x} is in no region")

    def words(self, mapping):
        return next(words for _, _, other, words in self._regions.values() if other is mapping)

    def write(self, address, data):
        mapping, at = self.at(address)
        mapping[at:at + len(data)] = data

    def read(self, address, length):
        mapping, at = self.at(address)
        return bytes(mapping[at:at + length])


class FrontEnd:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self.map = Memory()
        self.kicks, self.calls, self.kept = {}, {}, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.map.close()
        for fd in [*self.kept, *self.kicks.values(), *self.calls.values()]:
            os.close(fd)

    def keep(self, file):
        """Keeps a file open until the end of this front-end."""
        self.kept.append(file)
        return file

    @property
    def memory(self):
        """The file of the region at BASE."""
        return dict(self.map.table())[BASE]

    def send(self, request, payload=b"", fds=(), flags=VERSION):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([struct.pack("<III", request, flags, len(payload)) + payload], ancillary)

    def reply(self):
        header = self._exactly(12)
        return self._exactly(struct.unpack("<III", header)[2])

    def reply_with_files(self):
        header, ancillary, _, _ = self.socket.recvmsg(12, socket.CMSG_SPACE(4 * 8))
        files = array.array("i")
        for level, kind, data in ancillary:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            files.frombytes(data)
        return self._exactly(struct.unpack("<III", header)[2]), list(files)

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
        """Waits until the worker closes the connection."""
        try:
            while self.socket.recv(4096):
                pass
        except ConnectionError:
            pass
        return True

    def offered(self):
        """(the device's features, the protocol's features)"""
        return tuple(struct.unpack("<Q", self.ask(request))[0] for request in (GET_FEATURES, GET_PROTOCOL_FEATURES))

    def negotiate(self, features=VERSION_1, protocol=REPLY_ACK):
        self.send(SET_OWNER)
        self.send(SET_PROTOCOL_FEATURES, struct.pack("<Q", protocol))
        self.acknowledged(SET_FEATURES, struct.pack("<Q", features | PROTOCOL_FEATURES))

    def share(self, size=0x20000, seals=0):
        """Shares the region at BASE as the only one; replaces a previous one."""
        self.map.add(BASE, size, seals)
        self.set_memory(*self.map.table())

    def set_memory(self, *regions):
        """Shares memory from pairs of an address and a file, which is shared whole."""
        table = struct.pack("<II", len(regions), 0)
        for address, file in regions:
            table += struct.pack("<QQQQ", address, os.fstat(file).st_size, address, 0)
        self.acknowledged(SET_MEM_TABLE, table, [file for _, file in regions])

    def start_ring(self, index, size=256, base=0, parts=(0, 0x1000, 0x2000)):
        """Sets a ring's addresses, split or packed. `parts` are the offsets of descriptors, driver area and device area from
        the ring's start, by default each on a page of its own."""
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

    def get_inflight(self, rings, entries):
        """The back-end's buffer of in-flight descriptors: a description and the file, which the front-end keeps while the
        back-end restarts."""
        self.send(GET_INFLIGHT_FD, struct.pack("<QQHHI", 0, 0, rings, entries, 0))
        payload, [file] = self.reply_with_files()
        return payload, file

    def set_inflight(self, payload, file):
        self.acknowledged(SET_INFLIGHT_FD, payload, [file])

    def running(self, features=VERSION_1):
        base = 0x8000 if features & RING_PACKED else 0
        self.negotiate(features)
        self.share()
        self.start_ring(0, base=base)
        self.start_ring(1, base=base)
        return self
