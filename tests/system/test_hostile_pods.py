"""Pods that attack the switch through their workers, by their rings, their memory, their eventfds, the vhost-user protocol and
their frames, each beside two pods whose frames must all arrive. CPU time is bounded, not time: the machine may be busy."""

import contextlib
import ctypes
import itertools
import os
import select
import struct
import time

import pytest

import processes
from pod import BROADCAST, COUNT, HEADER, Pod, frame, mac
from support import SANITIZED, wait_until
from switched_node import running
from victims import DEVICES, Victims
from vhost_front import BASE, EVENT_INDEX, INDIRECT, MERGEABLE, RING_PACKED, SET_VRING_ENABLE, FrontEnd
from vrings import INDIRECT as TABLE
from vrings import NEXT, WRITE

pytestmark = [pytest.mark.packets, pytest.mark.release]
ROUNDS = 20
SPARE = 0x1c000          # an offset in a pod's memory that nothing else uses
FAR = 0x7000000000000000
KINDS = pytest.mark.parametrize("kind", [0, RING_PACKED], ids=["split", "packed"])


@pytest.fixture(scope="module")
def pair(module_directory):
    with running(module_directory, count=DEVICES) as node:
        victims = Victims(node).begin()
        victims.rounds(3)
        victims.alone = min(victims.rounds(ROUNDS) for _ in range(3)) / ROUNDS
        yield victims


@pytest.fixture
def victims(pair):
    yield pair.begin()
    pair.detach()


def beside(victims, step=lambda: None, allowed=0.001, rounds=ROUNDS):
    """Rounds of the victims' frames, each after a step of the attack, which may cost the switch that many CPU seconds."""
    spent = victims.rounds(rounds, step) / rounds
    # Between frames a poller spins; the more that is, the slower the rounds are, as beside a step.
    limit = 4 * victims.alone + allowed
    print(f"{spent * 1000:.2f} ms of CPU a round, limit {limit * 1000:.2f}, alone {victims.alone * 1000:.2f}")
    assert SANITIZED or spent < limit, f"{spent * 1000:.2f} ms of CPU a round; at most {limit * 1000:.2f} " \
                                       f"(alone {victims.alone * 1000:.2f})"


def send(victims, attacker, count=1):
    """Frames from a victim to the attacker, who may take them or not."""
    for _ in range(count):
        victims.pods[0].send_to(attacker.mac, b"to the attacker")


# --- rings: what is in them and how much

def poke(victims, attacker, ring):
    """Has the switch read one of the attacker's rings."""
    with contextlib.suppress(OSError):
        attacker.kick(ring)
    if ring == 0:
        send(victims, attacker)


def index_ahead(pod, ring):
    pod.rings[ring].set_word(1, 2, pod.rings[ring].used_index + 0x7fff)


def index_ahead_by_one_too_many(pod, ring):
    pod.rings[ring].set_word(1, 2, pod.rings[ring].used_index + pod.entries + 1)


def index_back(pod, ring):
    pod.rings[ring].set_word(1, 2, pod.rings[ring].used_index - 1)


def _every(pod, ring, *descriptor):
    """Makes every descriptor of the ring this one, and all of them available."""
    if pod.features & RING_PACKED:
        address, length, flags, _ = descriptor
        view = pod.rings[ring]
        for entry in range(pod.entries):
            turn = view.AVAILABLE if view._wrap(view._last + entry) else view.USED
            view.pack(0, 16 * ((view._last + entry) % pod.entries), "<QIHH", address, length, entry, flags | turn)
        return
    for entry in range(pod.entries):
        pod.rings[ring].describe(entry, *descriptor)
    pod.rings[ring].expose_all()


def _flag(ring):
    return 0 if ring else WRITE


def head_outside(pod, ring):
    view = pod.rings[ring]
    for entry in range(pod.entries):
        view.set_word(1, 4 + 2 * entry, pod.entries + 5)
    view.set_word(1, 2, view.used_index + 1)


def loop(pod, ring):
    """A chain without an end: each descriptor's next is the same one; in a packed ring, all belong to one chain."""
    _every(pod, ring, BASE + SPARE, 60, NEXT | _flag(ring), 7)


def next_outside(pod, ring):
    _every(pod, ring, BASE + SPARE, 60, NEXT | _flag(ring), pod.entries)


def outside(pod, ring):
    _every(pod, ring, FAR, 100, _flag(ring), 0)


def across_the_end(pod, ring):
    _every(pod, ring, BASE + 0x20000 - 10, 2048, _flag(ring), 0)


def around_the_end_of_all_addresses(pod, ring):
    _every(pod, ring, 2 ** 64 - 16, 2048, _flag(ring), 0)


def wrong_direction(pod, ring):
    _every(pod, ring, BASE + SPARE, 2048, _flag(1 - ring), 0)


def _entry(pod, where, length, flags, following):
    return struct.pack("<QIHH", where, length, *((0, flags & ~NEXT) if pod.features & RING_PACKED else (flags, following)))


def _table(pod, ring, entries, length=None, address=BASE + SPARE, flags=0):
    """Makes all descriptors refer to an indirect table with these entries: address, length, flags, next (of a split ring)."""
    data = b"".join(_entry(pod, *entry) for entry in entries)
    pod.map.write(BASE + SPARE, data)
    _every(pod, ring, address, len(data) if length is None else length, TABLE | flags, 0)


def table_huge(pod, ring):
    """With a split ring the next entry is somewhere in it."""
    _table(pod, ring, [(BASE + SPARE, 60, NEXT | _flag(ring), 0x7000)], length=0xfffffff0)


def table_odd(pod, ring):
    _table(pod, ring, [(BASE + SPARE, 60, _flag(ring), 0)], length=24)


def table_empty(pod, ring):
    _table(pod, ring, [], length=0)


def table_outside(pod, ring):
    _table(pod, ring, [], length=64, address=FAR)


def table_across_the_end(pod, ring):
    end = BASE + 0x20000
    pod.map.write(end - 32, b"".join(_entry(pod, BASE + SPARE, 60, NEXT | _flag(ring), n) for n in (1, 2)))
    _table(pod, ring, [], length=64, address=BASE + 0x20000 - 32)


def table_in_a_table(pod, ring):
    _table(pod, ring, [(BASE + SPARE, 16, TABLE | _flag(ring), 0)])


def table_in_a_chain(pod, ring):
    _table(pod, ring, [(BASE + SPARE, 60, _flag(ring), 0)], flags=NEXT)


def table_loop(pod, ring):
    """The entry is its own next; in a packed ring's table all are used, of which there are more than a buffer may have."""
    _table(pod, ring, [(BASE + SPARE, 60, NEXT | _flag(ring), 0)] * 1000)


def table_next_outside(pod, ring):
    _table(pod, ring, [(BASE + SPARE, 60, NEXT | _flag(ring), 5)] * 2)


RING_ATTACKS = [(attack, 0, words) for attack, words in (
    (index_ahead, "available"), (index_ahead_by_one_too_many, "available"), (index_back, "available"),
    (head_outside, "is available, of"), (loop, "more than"), (next_outside, "next in a chain"),
    (outside, "not within the shared memory"), (across_the_end, "not within the shared memory"),
    (around_the_end_of_all_addresses, "not within the shared memory"), (wrong_direction, "not for the device to"))
] + [(attack, INDIRECT, words) for attack, words in (
    (table_huge, "entry"), (table_odd, "table"), (table_empty, "table"), (table_outside, "not within the shared memory"),
    (table_across_the_end, "not within the shared memory"), (table_in_a_table, "within an indirect table"),
    (table_in_a_chain, "amid a chain"), (table_loop, "more than"), (table_next_outside, "next in a chain"))]
# A packed ring has no such fields; in its tables all flags but WRITE are ignored (virtio 1.2, 2.8.7).
SPLIT_ONLY = (index_ahead, index_ahead_by_one_too_many, index_back, head_outside, next_outside, table_next_outside,
              table_in_a_table)


@pytest.mark.parametrize("ring", [0, 1], ids=["receiving", "sending"])
@pytest.mark.parametrize("kind, attack, features, words", [
    pytest.param(kind, *each, id=f"{name}-{each[0].__name__}") for kind, name in ((0, "split"), (RING_PACKED, "packed"))
    for each in RING_ATTACKS if not kind or each[0] not in SPLIT_ONLY])
def test_a_ring_that_breaks_the_rules_costs_its_own_port(victims, kind, ring, attack, features, words):
    attacker = victims.attacker(features=kind | features)
    victims.round()
    attack(attacker, ring)
    poke(victims, attacker, ring)
    beside(victims, rounds=3, allowed=0.01)
    victims.accused(attacker.number, f"ring {ring}", words)
    victims.unharmed()


@pytest.mark.parametrize("entries", [2, 16, 32, 256])
def test_a_mergeable_ring_of_empty_buffers_far_ahead(victims, entries):
    """rte_vhost records every entry of a burst in an array as long as the ring, and wrote behind it."""
    attacker = victims.attacker(features=MERGEABLE, entries=entries)
    ring = attacker.rings[0]
    for slot in range(entries):
        ring.describe(slot, BASE + SPARE, 2048 if slot % 128 == 127 else 0, WRITE)
        ring.set_word(1, 4 + 2 * slot, slot)

    def step():
        ring.set_word(1, 2, ring.used_index + 0x7fff)
        for number in range(16):
            victims.pods[0].offer(frame(attacker.mac, victims.pods[0].mac, b"burst %d" % number))
        wait_until(victims.pods[0].idle, "the frames to be taken")
    beside(victims, step)
    victims.accused(attacker.number, "ring 0", "available")
    victims.unharmed()


@KINDS
@pytest.mark.parametrize("entries", [2, 4, 32, 256])
def test_rings_of_every_size_with_every_feature(victims, kind, entries):
    """Worker and switch once kept small rings and indirect tables away."""
    pods = [victims.attacker(features=kind | INDIRECT | MERGEABLE | EVENT_INDEX, entries=entries) for _ in range(2)]
    count = min(COUNT, entries)
    for number in range(3 * entries // count + 3):
        data = [frame(pods[1].mac, pods[0].mac, b"%d.%d" % (number, n), size=SIZE) for n, SIZE in
                zip(range(count), itertools.cycle((60, 1514)))]
        for each in data:
            pods[0].offer(each)
        came = []
        wait_until(lambda: came.extend(pods[1].take()) or len(came) >= count, lambda: f"{len(came)} of {count}", 20, 0.0005)
        assert came == data
        wait_until(pods[0].idle, "the frames to be given back")
    victims.unharmed()


@KINDS
@pytest.mark.parametrize("descriptors", [1, 4, 17, 64, 250])
@pytest.mark.parametrize("table", [False, True], ids=["chained", "in tables"])
def test_frames_in_long_chains(victims, kind, descriptors, table):
    """Up to the budget they arrive, beyond it they are dropped by that name; either is cheap."""
    receiver, attacker = victims.attacker(), victims.attacker(features=kind | (INDIRECT if table else 0))
    data = HEADER + frame(receiver.mac, attacker.mac, b"in pieces", size=1000)
    attacker.map.write(BASE + SPARE, data)
    cut = -(-len(data) // descriptors)
    parts = [(BASE + SPARE + at, min(cut, len(data) - at)) for at in range(0, len(data), cut)]
    victims.round()

    def step():
        if table:
            entries = b"".join(struct.pack("<QIHH", address, length, *(
                (n, 0) if kind else (NEXT if n + 1 < len(parts) else 0, n + 1 if n + 1 < len(parts) else 0)))
                for n, (address, length) in enumerate(parts))
            attacker.map.write(BASE + SPARE + 0x1000, entries)
            _every(attacker, 1, BASE + SPARE + 0x1000, len(entries), TABLE, 0)
        else:
            _chain_all(attacker, parts)
        poke(victims, attacker, 1)
    beside(victims, step, allowed=0.004)   # up to 256 frames a step
    came, dropped = receiver.take(), victims.node.control.drops(f"nic-{attacker.number}")
    wait_until(lambda: victims.node.datapath.attachment(f"nic-{attacker.number}").state == "running", victims.log, 10)
    if descriptors <= 17 or not dropped:
        assert came and set(came) == {data[len(HEADER):]} and dropped == {}
    else:
        assert not came and dropped.keys() == {"chain_too_long"}, f"{len(came)} came, dropped: {dropped}"
    victims.unharmed()


def _chain_all(pod, parts):
    """As many chains of these parts as the sending ring has room for."""
    ring = pod.rings[1]
    if pod.features & RING_PACKED:
        for entry in range(pod.entries // len(parts) * len(parts)):
            n = entry % len(parts)
            turn = ring.AVAILABLE if ring._wrap(ring._last + entry) else ring.USED
            ring.pack(0, 16 * ((ring._last + entry) % pod.entries), "<QIHH", *parts[n], entry,
                      turn | (NEXT if n + 1 < len(parts) else 0))
        return
    chains = pod.entries // len(parts)
    used = ring.used_index
    for chain in range(chains):
        for n, (address, length) in enumerate(parts):
            last = n + 1 == len(parts)
            slot = chain * len(parts) + n
            ring.describe(slot, address, length, 0 if last else NEXT, 0 if last else slot + 1)
        ring.set_word(1, 4 + 2 * ((used + chain) % pod.entries), chain * len(parts))
    ring.set_word(1, 2, used + chains)


@KINDS
@pytest.mark.parametrize("length", [0, 1, 12, 13, 60])
@pytest.mark.parametrize("features", [0, MERGEABLE], ids=["single", "mergeable"])
def test_receive_buffers_that_have_no_room(victims, kind, features, length):
    """Frames to it are dropped, or merged where that is possible, or its port is closed; a frame never costs a ring's lap."""
    attacker = victims.attacker(features=kind | features)
    victims.round()

    def step():
        with contextlib.suppress(OSError):
            _every(attacker, 0, BASE + SPARE, length, WRITE, 0)
        send(victims, attacker, 4)
    beside(victims, step, allowed=0.002)   # a poller spins after each of the four frames
    if length < len(HEADER):
        victims.accused(attacker.number, "ring 0", "the header alone has")
    victims.unharmed()


def test_a_ring_that_changes_while_it_is_read(victims):
    """Index, descriptors and table are rewritten at random beside the switch's reading."""
    attacker = victims.attacker(features=INDIRECT | MERGEABLE)
    numbers = [struct.unpack("<Q", os.urandom(8))[0] for _ in range(64)]

    def step():
        for number in numbers:
            ring = attacker.rings[number & 1]
            slot = number >> 1 & 255
            ring.describe(slot, BASE + (number >> 9 & 0x1ffff), number >> 26 & 0xfff, number >> 38 & 7, number >> 41 & 0x1ff)
            ring.set_word(1, 4 + 2 * (number >> 50 & 255), slot)
            ring.set_word(1, 2, ring.used_index + (number >> 58))
        poke(victims, attacker, 1)
        send(victims, attacker)
    beside(victims, step, rounds=50)
    victims.unharmed()


# --- memory that goes away

@KINDS
@pytest.mark.parametrize("left", [0, 0x4000, 0x9000], ids=["nothing", "a ring", "the rings"])
@pytest.mark.parametrize("way", [0, 1], ids=["receiving", "sending"])
def test_memory_that_is_truncated_under_traffic(victims, kind, left, way):
    attacker = victims.attacker(features=kind)
    attacker.send_to(victims.pods[1].mac, b"whole")
    send(victims, attacker)
    os.ftruncate(attacker.memory, left)
    if way:
        attacker.kick(1)
    else:
        for number in range(3 * COUNT):
            victims.pods[0].send_to(attacker.mac, b"into nothing %d" % number)
    beside(victims, allowed=0.005, rounds=5)
    if left == 0:
        victims.accused(attacker.number, "memory")
    victims.unharmed()


def test_memory_in_which_holes_are_punched(victims):
    """A hole of a memfd reads as zeros: its ring then goes backwards."""
    attacker = victims.attacker(features=MERGEABLE)
    numbers = itertools.count()

    def step():
        page = (0, 0x1000, 0x2000, 0x4000, 0x5000, 0x6000, 0x8000, 0x14000)[next(numbers) % 8]
        _punch(attacker.memory, page, 0x1000)
        with contextlib.suppress(OSError):
            attacker.kick(1)
        send(victims, attacker)
    beside(victims, step, rounds=16)
    victims.unharmed()


def _punch(file, at, size):
    keep_size, punch_hole = 1, 2
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    if libc.fallocate(file, keep_size | punch_hole, at, size) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


# --- eventfds

def fill(eventfd):
    """The next write to it blocks until it is read."""
    os.set_blocking(eventfd, False)
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(eventfd)
    os.eventfd_write(eventfd, 2 ** 64 - 2)
    os.set_blocking(eventfd, True)


@KINDS
@pytest.mark.parametrize("ring", [0, 1], ids=["receiving", "sending"])
def test_a_call_eventfd_that_blocks(victims, kind, ring):
    attacker = victims.attacker(features=kind)
    victims.round()
    fill(attacker.calls[ring])
    if ring:
        attacker.offer(frame(attacker.mac, attacker.mac))
    else:
        send(victims, attacker)
    beside(victims, allowed=0.01, rounds=5)
    victims.accused(attacker.number, "call eventfd")
    victims.unharmed()


def test_a_call_eventfd_that_becomes_blocking_again_and_again(victims):
    """While the switch writes to it; whatever it set on the descriptor, the pod has it too."""
    attacker = victims.attacker()

    def step():
        with contextlib.suppress(OSError):
            fill(attacker.calls[0])
        send(victims, attacker)
    beside(victims, step, allowed=0.01, rounds=10)
    victims.accused(attacker.number, "call eventfd")
    victims.unharmed()


WATCHERS = 50_000


@contextlib.contextmanager
def watched(eventfd):
    """As many epoll sets' entries wait for this eventfd."""
    copies = [os.dup(eventfd) for _ in range(100)]
    sets = [select.epoll() for _ in range(WATCHERS // len(copies))]
    try:
        for each in sets:
            for copy in copies:
                each.register(copy, select.EPOLLIN | select.EPOLLET)
        yield
    finally:
        for each in sets:
            each.close()
        for copy in copies:
            os.close(copy)


def test_a_call_eventfd_with_watchers(victims):
    """Each notification takes milliseconds: the switch makes few of them, but the last frame's in the end."""
    sender, attacker = victims.attacker(), victims.attacker()
    with watched(attacker.calls[0]):
        times = []
        for _ in range(5):
            before = time.thread_time()
            os.eventfd_write(attacker.calls[0], 1)
            times.append(time.thread_time() - before)
        write = min(times)
        print(f"a write takes {write * 1000:.2f} ms")

        def step():
            """Four frames, each of which would be a notification."""
            attacker.take()
            for number in range(4):
                sender.send_to(attacker.mac, b"%d" % number)
        beside(victims, step, allowed=write, rounds=30)
        os.eventfd_read(attacker.calls[0])
        sender.send_to(attacker.mac, b"the last")
        late = select.poll()
        late.register(attacker.calls[0], select.POLLIN)
        assert late.poll(10000), "it was forgotten"
    victims.unharmed()


# --- the protocol

def bounded(victims, operations, allowed, act):
    """Repeats an operation while the victims go on; the switch may spend that much on each."""
    before, spent = processes.cpu_seconds(victims.pid), 0
    for number in range(operations):
        act(number)
        if number % (operations // 10) == 0:
            victims.round()
    spent = (processes.cpu_seconds(victims.pid) - before) / operations
    assert SANITIZED or spent < 10 * 4 * victims.alone / operations + allowed, f"{spent * 1000:.2f} ms an operation"
    victims.unharmed()


@KINDS
def test_a_storm_of_enabling_and_disabling(victims, kind):
    attacker = victims.attacker(features=kind)
    bounded(victims, 300, 0.002, lambda number: attacker.acknowledged(
        SET_VRING_ENABLE, struct.pack("<II", number & 1, number >> 1 & 1)))


@KINDS
def test_a_storm_of_stopping_and_starting(victims, kind):
    attacker = victims.attacker(features=kind)
    bounded(victims, 200, 0.004, lambda number: attacker.restart_ring(number & 1))


def test_a_storm_of_memory_tables(victims):
    """Up to hundreds of regions, of other files each time."""
    attacker = victims.attacker()
    table = attacker.map.table()
    files = [attacker.keep(os.memfd_create("more")) for _ in range(7)]
    for file in files:
        os.ftruncate(file, 0x10000)
        os.pwrite(file, bytes(0x10000), 0)

    def act(number):
        attacker.set_memory(*table, *(((1 << 40) + n * 0x10000 + (number % 16 << 32), file) for n, file in
                                      enumerate(files[:number % 8])))
    bounded(victims, 200, 0.004, act)


def test_a_storm_of_connections(victims):
    number = victims.attach()
    path = victims.path(number)

    def act(count):
        if count % 3 == 0:
            with Pod(path, mac(number)) as pod:
                pod.offer(frame(pod.mac, pod.mac, b"hello"))
        else:
            with FrontEnd(path) as front:
                if count % 3 == 1:
                    front.negotiate()
                    front.share()
                else:
                    front.socket.sendall(b"\x05" * (count % 20))
    bounded(victims, 120, 0.01, act)
    wait_until(lambda: victims.node.datapath.attachment(f"nic-{number}").state == "waiting", "the device to wait for a pod")


# --- frames

def again_and_again(pod, frames):
    """Puts frames into the sending ring, once around it per call of the result."""
    ring = pod.rings[1]
    for slot in range(pod.entries):
        data = HEADER + frames[slot % len(frames)]
        address = BASE + SPARE + slot % len(frames) * 128
        pod.map.write(address, data)
        ring.describe(slot, address, len(data), 0)

    def go():
        wait_until(lambda: ring.used_index == ring.word(1, 2), "the frames to be taken")
        ring.expose_all()
        pod.kick(1)
    return go


def test_a_flood_of_addresses(victims):
    """Of senders that are nobody's. The victims are still found."""
    accomplice, attacker = victims.attacker(), victims.attacker()
    senders = [f"02:ff:{n >> 24:02x}:{n >> 16 & 255:02x}:{n >> 8 & 255:02x}:{n & 255:02x}" for n in
               struct.unpack("<30I", os.urandom(120))]
    go = again_and_again(attacker, [frame(accomplice.mac, sender) for sender in senders])
    number = itertools.count()

    def step():
        for slot in range(len(senders)):   # other addresses each time
            attacker.map.write(BASE + SPARE + slot * 128 + len(HEADER) + 8, struct.pack(">I", next(number)))
        go()
    beside(victims, step, allowed=0.003)
    stranger = "02:ee:00:00:00:01"   # an address that a victim has taken beside its own is found as well
    victims.pods[0].send_to(victims.pods[1].mac, b"it's me", sender=stranger)
    victims.pods[1].wait_payload(b"it's me")
    go()
    victims.pods[1].send_to(stranger, b"found")
    victims.pods[0].wait_payload(b"found")
    victims.unharmed()


def test_a_flood_of_broadcasts_beside_another_vlan(victims):
    """Each frame is copied to every bystander; the victims' VLAN is another."""
    numbers = [victims.attach(vlan=9) for _ in range(9)]
    bystanders = [victims.attacker(number) for number in numbers]
    attacker = bystanders.pop()
    go = again_and_again(attacker, [frame(BROADCAST, attacker.mac, b"to all")])
    beside(victims, go, allowed=0.005)   # 2,048 copies a step, but for the limit of what a pod may send to all
    for pod in bystanders:
        assert pod.take(), "a bystander got nothing"
    assert victims.node.control.drops(f"nic-{attacker.number}").get("storm", 0) > 1000
    victims.unharmed()
