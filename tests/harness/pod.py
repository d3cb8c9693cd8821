"""A pod that sends and receives chosen frames: a vhost-user front-end with split rings by hand."""

import mmap
import os
import struct

from support import wait_until
from vhost_front import BASE, VERSION_1, FrontEnd

RING, SIZE = 0x4000, 256  # bytes from ring to ring; descriptors
BUFFERS, BUFFER, COUNT = 0x8000, 0x800, 24  # where the first is, bytes of each, how many a ring has
HEADER = bytes(12)  # virtio-net's
BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac(number):
    return f"02:00:00:00:00:{number:02x}"


def frame(to, sender, payload=b"", vlan=None, size=60):
    """An Ethernet frame of at least `size` bytes, tagged if `vlan` is given."""
    tag = struct.pack("!HH", 0x8100, vlan) if vlan is not None else b""
    head = bytes.fromhex(to.replace(":", "")) + bytes.fromhex(sender.replace(":", "")) + tag + b"\x88\xb5"
    return (head + payload).ljust(size, b"\0")


class Pod(FrontEnd):
    """Connected, its rings running and its receive buffers posted. Ring 0 receives, ring 1 sends."""

    def __init__(self, path, address=mac(1), size=0x20000, entries=SIZE):
        super().__init__(path)
        self.mac = address
        self.entries = entries
        self.negotiate(VERSION_1)
        self.share(size)
        self.bytes = mmap.mmap(self.memory, size)
        self._words = memoryview(self.bytes).cast("H")  # written and read whole, as struct doesn't
        self._sent = self._taken = 0
        for slot in range(COUNT):
            self._describe(0, slot, BUFFER, writable=True)
            self._make_available(0, slot, slot)
        self.start_ring(0, entries)
        self.start_ring(1, entries)

    def __exit__(self, *_):
        self._words.release()
        self.bytes.close()
        super().__exit__()

    def move(self, memory):
        """Goes on in another file at the same addresses, which has a copy of all."""
        self._words.release()
        self.bytes.close()
        self.bytes = mmap.mmap(memory, 0)
        self._words = memoryview(self.bytes).cast("H")
        self.set_memory((BASE, memory))
        os.close(self.memory)
        self.memory = memory

    def restart_ring(self, ring):
        """As a driver that takes it away and gives it again."""
        base = self.stop_ring(ring)
        for fd in (self.kicks.pop(ring), self.calls.pop(ring)):
            os.close(fd)
        self.start_ring(ring, self.entries, base=base)

    def kick(self, ring):
        os.eventfd_write(self.kicks[ring], 1)

    def offer(self, data):
        """Sends a frame, whoever takes it."""
        slot = self._sent % COUNT
        at = BUFFERS + (COUNT + slot) * BUFFER
        self.bytes[at:at + len(HEADER) + len(data)] = HEADER + data
        self._describe(1, slot, len(HEADER) + len(data), writable=False)
        self._make_available(1, self._sent, slot)
        self._sent += 1
        self.kick(1)

    def offer_from(self, address, length):
        """Sends what is there, virtio-net's header first."""
        slot = self._sent % COUNT
        struct.pack_into("<QIHH", self.bytes, RING + slot * 16, address, length, 0, 0)
        self._make_available(1, self._sent, slot)
        self._sent += 1
        self.kick(1)

    def idle(self):
        """Whether all that was sent has been taken."""
        return self._used(1) == self._sent & 0xffff

    def push(self, *frames):
        """Sends frames and waits until the other side has taken them."""
        for data in frames:
            self.offer(data)
            wait_until(self.idle, "the switch to take a frame", interval=0.001)
        return self

    def send_to(self, address, payload=b"", sender=None, **other):
        return self.push(frame(address, sender or self.mac, payload, **other))

    def take(self):
        """The frames that came since the last call; their buffers are posted again."""
        frames = []
        while self._taken & 0xffff != self._used(0):
            at = 0x2000 + 4 + self._taken % self.entries * 8
            slot, length = struct.unpack_from("<II", self.bytes, at)
            start = BUFFERS + slot * BUFFER + len(HEADER)
            frames.append(bytes(self.bytes[start:start + length - len(HEADER)]))
            self._make_available(0, self._taken + COUNT, slot)
            self._taken += 1
        return frames

    def payloads(self):
        """What came since the last call, without headers and padding."""
        return [data[14:].rstrip(b"\0") for data in self.take()]

    def wait_payload(self, payload, timeout=30):
        """Everything that came up to this payload, which is the last of it."""
        came = []

        def arrived():
            came.extend(self.payloads())
            return payload in came
        wait_until(arrived, lambda: f"{payload} among {came}", timeout, interval=0.001)
        return came

    def post(self, count):
        """Gives the receiving ring so many more buffers: the same again, for frames that are only counted."""
        for index in range(COUNT, COUNT + count):
            self._make_available(0, index, index % COUNT)

    def received(self):
        """How many frames came, of a pod that takes none."""
        return self._used(0)

    def fill_rings(self, address, length):
        """From now on every descriptor of both rings names this memory; only push_rings() makes sense then."""
        for ring in (0, 1):
            for slot in range(self.entries):
                struct.pack_into("<QIHH", self.bytes, ring * RING + slot * 16, address, length, 0 if ring else 2, 0)
                self._words[(ring * RING + 0x1004) // 2 + slot] = slot

    def push_rings(self):
        """Makes all the descriptors available."""
        for ring in (0, 1):
            self._words[(ring * RING + 0x1002) // 2] = self._used(ring) + self.entries & 0xffff
            self.kick(ring)

    def _used(self, ring):
        return self._words[(ring * RING + 0x2002) // 2]

    def _describe(self, ring, slot, length, writable):
        buffer = BASE + BUFFERS + (slot if ring == 0 else COUNT + slot) * BUFFER
        struct.pack_into("<QIHH", self.bytes, ring * RING + slot * 16, buffer, length, 2 if writable else 0, 0)

    def _make_available(self, ring, index, slot):
        available = (ring * RING + 0x1000) // 2
        self._words[available + 2 + index % self.entries] = slot
        self._words[available + 1] = (index + 1) & 0xffff


def exchange(one, other, payload=b"ping", timeout=30):
    """A frame each way between two pods."""
    one.send_to(other.mac, payload + b"-there")
    other.wait_payload(payload + b"-there", timeout)
    other.send_to(one.mac, payload + b"-back")
    one.wait_payload(payload + b"-back", timeout)


class Sparse(Pod):
    """Shares much memory that it has not touched, and sends what is there: whoever reads it has it allocated."""

    SIZE, PAGE = 1 << 30, 4096

    def __init__(self, path, address=mac(1)):
        super().__init__(path, address, self.SIZE)
        self._next = BASE + (1 << 20)

    def have_allocated(self, enough):
        """Page after page, until `enough` says so."""
        def done():
            if self.idle():
                for _ in range(COUNT):
                    self.offer_from(self._next, 1500)
                    self._next += self.PAGE
            return enough()
        wait_until(done, "the switch to have allocated enough", 60, interval=0.001)
