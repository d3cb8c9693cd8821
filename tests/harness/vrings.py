"""The driver's side of virtqueues in Python (virtio 1.2, 2.7 and 2.8): split and packed, with event index and indirect
descriptors. The memory is any object that maps guest addresses to buffers, such as vhost_front.Memory."""

import struct

NEXT, WRITE, INDIRECT = 1, 2, 4
AREAS = (0, 0x1000, 0x2000)   # offsets of descriptors, driver and device area from a ring's start
TABLES, TABLE = 0x3000, 128   # offset of the indirect tables, and the bytes of each


class Buffer:
    """A part of a chain."""

    def __init__(self, address, length, writable):
        self.address, self.length, self.flags = address, length, WRITE if writable else 0


class Ring:
    def __init__(self, memory, address, entries, event_index=False, indirect=False):
        self.memory, self.address, self.entries = memory, address, entries
        self.event_index, self.indirect = event_index, indirect
        self.added = self.taken = 0   # number of chains so far
        self.kicks = 0                # kicks that the device wanted
        self._free = list(range(entries))
        self._chains = {}             # by first descriptor or buffer ID: (token, descriptors)

    def pack(self, area, offset, form, *values):
        # struct.pack_into() writes zeros first, which a device would see where the same is written again.
        view, at = self.memory.at(self.address + AREAS[area] + offset)
        data = struct.pack(form, *values)
        view[at:at + len(data)] = data

    def unpack(self, area, offset, form):
        view, at = self.memory.at(self.address + AREAS[area] + offset)
        return struct.unpack_from(form, view, at)

    def word(self, area, offset):
        """Reads the value in a single access, which struct doesn't guarantee."""
        view, at = self.memory.at(self.address + AREAS[area] + offset)
        return self.memory.words(view)[at // 2]

    def set_word(self, area, offset, value):
        view, at = self.memory.at(self.address + AREAS[area] + offset)
        self.memory.words(view)[at // 2] = value & 0xffff

    def _table(self, token, buffers, chained):
        """Makes an indirect table of the buffers, and returns the buffer that stands for them."""
        table = self.address + TABLES + token * TABLE
        view, at = self.memory.at(table)
        for n, buffer in enumerate(buffers):
            last = n + 1 == len(buffers)
            rest = (buffer.flags | (0 if last else NEXT), n + 1 if not last else 0) if chained else (n, buffer.flags)
            struct.pack_into("<QIHH", view, at + 16 * n, buffer.address, buffer.length, *rest)
        whole = Buffer(table, 16 * len(buffers), False)
        whole.flags = INDIRECT
        return [whole]


class SplitRing(Ring):
    BASE = 0   # the start position, in the form of VRING_BASE

    @property
    def used_index(self):
        return self.word(2, 2)

    def describe(self, slot, address, length, flags, following=0):
        self.pack(0, slot * 16, "<QIHH", address, length, flags, following)

    def expose(self, head):
        """Makes the chain that starts at this descriptor available."""
        self.set_word(1, 4 + 2 * (self.added % self.entries), head)
        self.added += 1
        self.set_word(1, 2, self.added)

    def expose_all(self):
        """Makes every descriptor available once, each as a chain of its own."""
        for slot in range(self.entries):
            self.set_word(1, 4 + 2 * slot, slot)
        self.set_word(1, 2, self.used_index + self.entries)

    def add(self, token, buffers):
        if self.indirect:
            buffers = self._table(token, buffers, chained=True)
        slots = [self._free.pop(0) for _ in buffers]
        for n, (slot, buffer) in enumerate(zip(slots, buffers)):
            last = n + 1 == len(slots)
            self.describe(slot, buffer.address, buffer.length, buffer.flags | (0 if last else NEXT),
                          0 if last else slots[n + 1])
        self._chains[slots[0]] = token, slots
        self.expose(slots[0])

    def take(self):
        """Returns (token, bytes written) of the chains used since the last call."""
        while self.taken & 0xffff != self.used_index:
            head, length = self.unpack(2, 4 + self.taken % self.entries * 8, "<II")
            self.taken += 1
            token, slots = self._chains.pop(head)
            self._free += slots
            yield token, length

    def wants_kick(self, before):
        """Whether to kick after chains were added since `before`."""
        if not self.event_index:
            return not self.word(2, 0) & 1
        event = self.word(2, 4 + 8 * self.entries)
        return (self.added - event - 1) & 0xffff < (self.added - before) & 0xffff

    def waits(self):
        """Whether the device waits for a kick, with event_index."""
        return self.word(2, 4 + 8 * self.entries) == self.added & 0xffff

    def call_after(self, count):
        """Suppresses calls until this many more chains are used; with event_index."""
        self.set_word(1, 4 + 2 * self.entries, self.taken + count - 1)

    def no_calls(self):
        self.set_word(1, 0, 1)


class PackedRing(Ring):
    BASE = 0x8000   # both wrap counters are set at first
    AVAILABLE, USED = 1 << 7, 1 << 15

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._next = self._last = 0    # descriptors written and read so far, modulo the wrap
        self._ids = list(range(self.entries))

    def _wrap(self, position):
        return position // self.entries % 2 == 0

    def add(self, token, buffers):
        if self.indirect:
            buffers = self._table(token, buffers, chained=False)
        assert len(buffers) <= self.entries - sum(len(slots) for _, slots in self._chains.values()), "the ring is full"
        identity, first = self._ids.pop(0), self._next
        flags = []
        for n, buffer in enumerate(buffers):
            bit = self.AVAILABLE if self._wrap(first + n) else self.USED
            flags.append(buffer.flags | bit | (NEXT if n + 1 < len(buffers) else 0))
            self.pack(0, 16 * ((first + n) % self.entries), "<QIH", buffer.address, buffer.length, identity)
        for n in reversed(range(len(buffers))):   # the first descriptor makes the whole chain available
            self.set_word(0, 16 * ((first + n) % self.entries) + 14, flags[n])
        self._next += len(buffers)
        self.added += 1
        self._chains[identity] = token, buffers

    def take(self):
        while True:
            at = 16 * (self._last % self.entries)
            flags = self.word(0, at + 14)
            wanted = (self.AVAILABLE | self.USED) if self._wrap(self._last) else 0
            if flags & (self.AVAILABLE | self.USED) != wanted or not self._chains:
                return
            length, identity = self.unpack(0, at + 8, "<IH")
            token, slots = self._chains.pop(identity)
            self._ids.append(identity)
            self._last += len(slots)
            self.taken += 1
            yield token, length

    def wants_kick(self, before):
        """Whether to kick after descriptors were added since there were `before`."""
        off_wrap, flags = self.unpack(2, 0, "<HH")
        if flags & 3 != 2:   # not RING_EVENT_FLAGS_DESC
            return flags & 3 == 0
        event = off_wrap & 0x7fff
        now = self._next % self.entries
        if bool(off_wrap >> 15) != self._wrap(self._next):
            event -= self.entries
        return (now - event - 1) & 0xffff < (self.added - before) & 0xffff

    def waits(self):
        off_wrap, flags = self.unpack(2, 0, "<HH")
        now = self._next % self.entries | (self._wrap(self._next) << 15)
        return flags & 3 == 0 or flags & 3 == 2 and off_wrap == now

    def call_after(self, count):
        position = self._last + count - 1
        self.pack(1, 0, "<HH", position % self.entries | (self._wrap(position) << 15), 2)

    def no_calls(self):
        self.pack(1, 0, "<HH", 0, 1)
