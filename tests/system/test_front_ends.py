"""Drivers of every kind through worker and engine: rings, features and memory as the worker offers them."""

import os
import socket
import struct
import threading

import pytest

from pod import BROADCAST, Pod, exchange, frame, mac
from support import wait_until
from switched_node import running
from testpmd import engine
from vhost_front import (EVENT_INDEX, GET_FEATURES, GET_INFLIGHT_FD, GET_PROTOCOL_FEATURES, INDIRECT, INFLIGHT,
                         MERGEABLE, NEED_REPLY, REPLY_ACK, RING_PACKED, SET_INFLIGHT_FD, SET_PROTOCOL_FEATURES, VERSION_1)
from worker import Worker

pytestmark = pytest.mark.packets
RINGS = pytest.mark.parametrize("ring", [0, RING_PACKED], ids=["split", "packed"])
JUMBO = 9014


def pair(node, **driver):
    """Two pods with the same kind of driver, through worker and switch."""
    pods = []
    for number in range(2):
        node.attach(number)
        pods.append(node.stack.enter_context(Pod(node.datapath.socket(f"nic-{number}"), mac(number), **driver)))
        node.control.wait_connected(f"nic-{number}")
    return pods


def burst(one, other, count, size=60):
    """That many frames each way, several in flight at once; each arrives whole and in order."""
    for sender, receiver in ((one, other), (other, one)):
        sent, came = 0, []
        wanted = [frame(receiver.mac, sender.mac, b"%d " % n + os.urandom(size // 2), size=size) for n in range(count)]

        def done():
            nonlocal sent
            came.extend(receiver.take())
            if sent < count and sender.idle():
                for data in wanted[sent:sent + 4]:
                    sender.offer(data)
                sent = min(sent + 4, count)
            return len(came) >= count
        wait_until(done, lambda: f"{count} frames; {len(came)} came", interval=0.0005)
        assert came == wanted


@RINGS
@pytest.mark.parametrize("regions", [1, 3])
@pytest.mark.parametrize("event_index", [0, EVENT_INDEX], ids=["flags", "event index"])
def test_frames_of_two_pods_through_the_switch(directory, ring, regions, event_index):
    with running(directory) as node:
        one, other = pair(node, features=ring | event_index, regions=regions)
        burst(one, other, 600)   # twice around a ring and more


@RINGS
def test_jumbo_frames_in_mergeable_buffers(directory, ring):
    """Each frame in five buffers, on both sides."""
    with running(directory, mtu=9000) as node:
        one, other = pair(node, features=ring | MERGEABLE)
        burst(one, other, 120, JUMBO)
        burst(one, other, 40)


@RINGS
def test_a_driver_with_event_index_kicks_when_it_is_asked_to_and_is_called_when_it_wants(directory, ring):
    with running(directory) as node:
        one, other = pair(node, features=ring | EVENT_INDEX)
        exchange(one, other)
        os.set_blocking(other.calls[0], False)
        drain(other.calls[0])
        other.rings[0].call_after(8)
        for number in range(7):
            one.send_to(other.mac, b"%d" % number)
        other.wait_payload(b"6")
        assert drain(other.calls[0]) == 0, "it requested a call for the eighth"
        one.send_to(other.mac, b"7")
        wait_until(lambda: drain(other.calls[0]), "the call")
        other.wait_payload(b"7")
        # A poller that is awake suppresses kicks; one that sleeps is woken by one.
        # It stays awake for a driver whose buffers come less than 80 us apart. To itself: nobody has to read these.
        data = frame(one.mac, one.mac)

        def mostly_without_kicks():
            kicks = one.rings[1].kicks
            for _ in range(100):
                one.offer(data)
                while not one.idle():
                    pass
            return one.rings[1].kicks - kicks < 50
        wait_until(mostly_without_kicks, "frames for which the poller was still awake")
        wait_until(one.rings[1].waits, "the poller to sleep and enable kicks")
        exchange(one, other, b"woken")


def drain(eventfd):
    try:
        return os.eventfd_read(eventfd)
    except BlockingIOError:
        return 0


@RINGS
@pytest.mark.parametrize("event_index", [0, EVENT_INDEX], ids=["flags", "event index"])
def test_indirect_descriptors_through_an_engine_that_may_get_them(directory, ring, event_index):
    """With an engine that sends each frame back, since a switch is never offered them."""
    with Worker(directory) as worker, engine(directory, worker.engine):
        with Pod(worker.wait_ready().socket, features=ring | INDIRECT | MERGEABLE | event_index, regions=3) as pod:
            worker.wait_state(front="running")
            for number in range(300):
                size = 60 if number % 3 else 5000
                data = frame(BROADCAST, mac(1), b"%d" % number, size=size)
                pod.push(data)
                came = wait_until(pod.take, f"frame {number} back", interval=0.0005)
                assert came == [data]


def test_the_worker_offers_no_buffer_of_inflight_descriptors(directory):
    """Not offered: a session ends with its worker, so no process would read it."""
    with Worker(directory) as worker, engine(directory, worker.engine):
        with Pod(worker.wait_ready().socket) as pod:
            assert not pod.offered()[1] & INFLIGHT and pod.inflight is None


class InflightEngine(threading.Thread):
    """Answers a front-end until it sets the buffer of in-flight descriptors. A stand-in written by the specification: no
    engine of ours offers one (neither vdpa-switch nor rte_vhost in vdpa-pmd), and QEMU's storage daemon does not either."""

    ANSWERS = {GET_FEATURES: struct.pack("<Q", VERSION_1 | 1 << 30),
               GET_PROTOCOL_FEATURES: struct.pack("<Q", REPLY_ACK | INFLIGHT)}

    def __init__(self, path):
        super().__init__()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.asked, self.given, self.agreed = None, None, None
        self.start()

    def run(self):
        connection, _ = self.listener.accept()
        with connection:
            while header := connection.recv(12, socket.MSG_PEEK):
                _, files, _, _ = socket.recv_fds(connection, 12, 8)
                request, flags, size = struct.unpack("<III", header)
                payload = connection.recv(size) if size else b""
                if request == GET_INFLIGHT_FD:
                    self.asked = struct.unpack("<QQHHI", payload)
                    self.file = os.memfd_create("inflight")
                    os.ftruncate(self.file, 0x3000)
                    answer = struct.pack("<QQHHI", 0x2000, 0x1000, *self.asked[2:4], 0)
                    socket.send_fds(connection, [struct.pack("<III", request, 5, len(answer)) + answer], [self.file])
                elif request in self.ANSWERS or flags & NEED_REPLY:
                    answer = self.ANSWERS.get(request, bytes(8))
                    connection.sendall(struct.pack("<III", request, 5, len(answer)) + answer)
                if request == SET_PROTOCOL_FEATURES:
                    self.agreed, = struct.unpack("<Q", payload)
                if request == SET_INFLIGHT_FD:
                    self.given = struct.unpack("<QQHHI", payload), os.path.samestat(os.fstat(files[0]), os.fstat(self.file))
                for file in files:
                    os.close(file)

    def __exit__(self, *_):
        self.listener.close()
        self.join(20)

    def __enter__(self):
        return self


def test_a_driver_asks_for_the_inflight_descriptors_that_are_offered_and_gives_them_back(directory):
    with InflightEngine(directory / "engine.sock") as engine_:
        with Pod(directory / "engine.sock", entries=64) as pod:
            assert engine_.asked == (0, 0, 2, 64, 0) and engine_.agreed & INFLIGHT
            assert engine_.given == ((0x2000, 0x1000, 2, 64, 0), True)
            assert os.path.samestat(os.fstat(pod.inflight[1]), os.fstat(engine_.file)), "it keeps it for the next engine"
    os.close(engine_.file)
