"""A pod that sends and receives chosen frames with a driver in Python: split or packed rings (vrings.py), in one region or
several, with event index, indirect descriptors, mergeable buffers and in-flight descriptors if negotiated."""

import os
import struct

from support import wait_until
from vhost_front import (BASE, EVENT_INDEX, INDIRECT, INFLIGHT, MERGEABLE, REPLY_ACK, RING_PACKED, VERSION_1, FrontEnd)
from vrings import WRITE, Buffer, PackedRing, SplitRing

RING, SIZE = 0x4000, 256  # bytes from ring to ring; number of descriptors
BUFFERS, BUFFER, COUNT = 0x8000, 0x800, 24  # offset of the first, bytes of each, number per ring
APART = 1 << 32  # distance between regions, if there are several
HEADER = bytes(12)  # virtio-net header
BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac(number):
    return f"02:00:00:00:00:{number:02x}"


MAC = mac(1)


def frame(to, sender, payload=b"", vlan=None, size=60):
    """An Ethernet frame of at least `size` bytes, tagged if `vlan` is given."""
    tag = struct.pack("!HH", 0x8100, vlan) if vlan is not None else b""
    head = bytes.fromhex(to.replace(":", "")) + bytes.fromhex(sender.replace(":", "")) + tag + b"\x88\xb5"
    return (head + payload).ljust(size, b"\0")


class Pod(FrontEnd):
    """A connected front-end with running rings and posted receive buffers. Ring 0 receives, ring 1 sends.

    `features` are negotiated besides VERSION_1; the back-end must offer them. With three `regions`, the rings, the receive
    buffers and the send buffers are in one region each.
    """

    def __init__(self, path, address=MAC, size=0x20000, entries=SIZE, features=0, regions=1):
        super().__init__(path)
        self.mac = address
        self.entries = entries
        self.features = VERSION_1 | features
        offered, protocol = self.offered()
        assert features & ~offered == 0, f"{features & ~offered:#x} is not offered"
        self.negotiate(self.features, REPLY_ACK | (protocol & INFLIGHT))
        self._receive, self._send = BASE + BUFFERS, BASE + BUFFERS + COUNT * BUFFER
        if regions == 3:
            self._receive, self._send = BASE + APART, BASE + 2 * APART
            for start in (self._receive, self._send):
                self.map.add(start, COUNT * BUFFER)
        self.map.add(BASE, size)
        self.set_memory(*self.map.table())
        kind = PackedRing if features & RING_PACKED else SplitRing
        self.rings = [kind(self.map, BASE + n * RING, entries, bool(features & EVENT_INDEX),
                           bool(features & INDIRECT) and n == 1) for n in range(2)]
        count = min(COUNT, entries)
        self._unsent = list(range(count))   # buffers
        self._sending = {}                  # the buffers of each frame, by the first one
        self._partial = []                  # parts of a frame in several buffers
        self.inflight = self.get_inflight(2, entries) if protocol & INFLIGHT else None
        if self.inflight:
            self.keep(self.inflight[1])
            self.set_inflight(*self.inflight)
        for slot in range(count):
            self._post(slot)
        for ring in range(2):
            self.start_ring(ring, entries, base=kind.BASE)
        self.kick(0)

    def move(self, file):
        """Continues in another file at the same addresses, with a copy of the contents."""
        self.map.adopt(BASE, file)
        self.set_memory(*self.map.table())

    def restart_ring(self, ring):
        """Removes the memory and adds it again, as a driver may."""
        base = self.stop_ring(ring)
        for fd in (self.kicks.pop(ring), self.calls.pop(ring)):
            os.close(fd)
        self.start_ring(ring, self.entries, base=base)

    def kick(self, ring):
        os.eventfd_write(self.kicks[ring], 1)

    def _kick_wanted(self, number, before):
        ring = self.rings[number]
        if ring.wants_kick(before):
            ring.kicks += 1
            self.kick(number)

    # --- sending

    def offer(self, data, header=HEADER):
        """Sends a frame, to any receiver, in as many buffers as it needs."""
        self._reap()
        data = header + data
        parts = [data[start:start + BUFFER] for start in range(0, len(data), BUFFER)]
        assert len(parts) <= len(self._unsent), "no one takes sent frames"
        slots = [self._unsent.pop(0) for _ in parts]
        for slot, part in zip(slots, parts):
            self.map.write(self._send + slot * BUFFER, part)
        self._transmit(slots, [Buffer(self._send + slot * BUFFER, len(part), False) for slot, part in zip(slots, parts)])

    def offer_from(self, address, length):
        """Sends the buffer's contents, virtio-net's header first."""
        self._reap()
        self._transmit([], [Buffer(address, length, False)])

    def _transmit(self, slots, buffers):
        ring, before = self.rings[1], self.rings[1].added
        token = slots[0] if slots else COUNT + before % self.entries   # nothing else is in flight
        self._sending[token] = slots
        ring.add(token, buffers)
        self._kick_wanted(1, before)

    def _reap(self):
        for token, _ in self.rings[1].take():
            self._unsent += self._sending.pop(token)

    def idle(self):
        """Whether the back-end has taken all sent frames."""
        self._reap()
        return self.rings[1].taken == self.rings[1].added

    def push(self, *frames):
        """Sends frames and waits until the back-end has taken them."""
        for data in frames:
            self.offer(data)
            wait_until(self.idle, "the switch to take a frame", interval=0.001)
        return self

    def send_to(self, address, payload=b"", sender=None, **other):
        return self.push(frame(address, sender or self.mac, payload, **other))

    # --- receiving

    def _post(self, slot):
        self.rings[0].add(slot, [Buffer(self._receive + slot * BUFFER, BUFFER, True)])

    def take(self):
        """Returns the frames received since the last call, and posts their buffers again."""
        return [data for _, data in self.take_with_headers()]

    def take_with_headers(self):
        """The same, as pairs of virtio-net's header, without the number of buffers, and the frame."""
        frames, before = [], self.rings[0].added
        for slot, length in self.rings[0].take():
            data = self.map.read(self._receive + slot * BUFFER, length)
            self._post(slot)
            if not self._partial:
                self._left = struct.unpack_from("<H", data, 10)[0] if self.features & MERGEABLE else 1
                self._header, data = data[:10], data[len(HEADER):]
            self._partial.append(data)
            self._left -= 1
            if self._left == 0:
                frames.append((self._header, b"".join(self._partial)))
                self._partial = []
        if self.rings[0].added != before:
            self._kick_wanted(0, before)
        return frames

    def payloads(self):
        """Returns the payloads received since the last call, without headers and padding."""
        return [data[14:].rstrip(b"\0") for data in self.take()]

    def wait_payload(self, payload, timeout=30):
        """Returns everything received up to and including this payload, which must be the last."""
        came = []

        def arrived():
            came.extend(self.payloads())
            return payload in came
        wait_until(arrived, lambda: f"{payload} among {came}", timeout, interval=0.001)
        return came

    # --- for a pod with split rings that takes nothing

    def post(self, count):
        """Adds this many buffers to the receiving ring: the same ones again, for frames that are only counted."""
        for index in range(count):
            self.rings[0].expose(index % COUNT)

    def received(self):
        """The number of received frames."""
        return self.rings[0].used_index

    def fill_rings(self, address, length):
        """Makes every descriptor of both rings point to this memory; afterwards only push_rings() makes sense."""
        for number, ring in enumerate(self.rings):
            for slot in range(self.entries):
                ring.describe(slot, address, length, 0 if number else WRITE)

    def push_rings(self):
        """Makes all descriptors available."""
        for number, ring in enumerate(self.rings):
            ring.expose_all()
            self.kick(number)


def exchange(one, other, payload=b"ping", timeout=30):
    """Sends a frame each way between two pods."""
    one.send_to(other.mac, payload + b"-there")
    other.wait_payload(payload + b"-there", timeout)
    other.send_to(one.mac, payload + b"-back")
    one.wait_payload(payload + b"-back", timeout)


class Sparse(Pod):
    """Shares much memory without touching it, and sends from it: the reader has it allocated."""

    SIZE, PAGE = 1 << 30, 4096

    def __init__(self, path, address=MAC):
        super().__init__(path, address, self.SIZE)
        self._next = BASE + (1 << 20)

    def have_allocated(self, enough):
        """Sends page after page, until `enough` returns true."""
        def done():
            if self.idle():
                for _ in range(COUNT):
                    self.offer_from(self._next, 1500)
                    self._next += self.PAGE
            return enough()
        wait_until(done, "the switch to have allocated enough", 60, interval=0.001)
