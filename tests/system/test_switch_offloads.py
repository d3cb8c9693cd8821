"""Checksum and segmentation offloads between ports of vdpa-switch: passed on, finished in software, or refused as wrong."""

import contextlib
import os

import pytest

from control_frames import Frames
from packets import (CSUM, GUEST_CSUM, HOST_TSO6, NEEDS_CSUM, RECEIVES, SENDS, TCPV4, TCPV6, UDP, UDP_PROTOCOL, Packet,
                     Parsed, header)
from pod import COUNT, Pod, exchange, mac
from support import wait_until
from switch import Switch
from switched_node import running
from vhost_front import MERGEABLE, RING_PACKED
from wire import raw_socket, receive, wire

pytestmark = [pytest.mark.packets, pytest.mark.release]
SIZE = 1400  # of segments
KINDS = pytest.mark.parametrize("kind", [0, RING_PACKED], ids=["split", "packed"])
IPV6 = pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])


@pytest.fixture
def switch(directory):
    with Switch(directory) as program:
        yield program.wait_ready()


@contextlib.contextmanager
def pods(switch, *features, **settings):
    with contextlib.ExitStack() as stack:
        frames = Frames(switch.path)
        stack.callback(frames.close)
        made = [stack.enter_context(Pod(frames.add(f"p{n}", mac(n), **settings), mac(n), features=wanted))
                for n, wanted in enumerate(features, 1)]
        for number in range(1, len(made) + 1):
            switch.wait_connected(f"p{number}")
        yield made


def come(pod, count=1):
    """The next frames with their headers, at least `count`."""
    found = []
    wait_until(lambda: found.extend(pod.take_with_headers()) or len(found) >= count, lambda: f"{count} frames: {found}",
               interval=0.001)
    return found


def send(pod, packet, head):
    pod.offer(packet.data, head + b"\0\0")
    wait_until(pod.idle, "the switch to take the frame", interval=0.001)


def large(one, other, ipv6=False, size=15000, **fields):
    return Packet(other.mac, one.mac, os.urandom(size), ipv6=ipv6, **fields)


@pytest.mark.parametrize("wanted", [True, False])
def test_what_a_pod_is_offered(switch, wanted):
    frames = Frames(switch.path)
    frames.add("p1", mac(1), offloads=wanted)
    frames.close()
    with Pod(switch.port("p1")["socket"], mac(1)) as pod:
        offered = pod.offered()[0] & (SENDS | RECEIVES)
        assert offered == (SENDS | RECEIVES if wanted else 0), f"{offered:#x}"


@KINDS
@IPV6
@pytest.mark.parametrize("protocol", [6, UDP_PROTOCOL], ids=["TCP", "UDP"])
def test_an_unfinished_checksum(switch, kind, ipv6, protocol):
    """It is passed on to whoever agreed on that, and finished for others."""
    with pods(switch, kind | CSUM, kind | GUEST_CSUM, kind) as (one, agreed, plain):
        for receiver in (agreed, plain):
            packet = Packet(receiver.mac, one.mac, b"a payload of odd length", protocol, ipv6)
            send(one, packet, packet.header())
            [(head, data)] = come(receiver)
            if receiver is agreed:
                assert (head, data) == (packet.header(), packet.data)
            else:
                assert head == bytes(10) and Parsed(data).payload == b"a payload of odd length"
        assert switch.drops("p1") == {}


@KINDS
@IPV6
def test_a_large_frame(switch, kind, ipv6):
    """It is passed on whole to whoever agreed on that, and segmented for others."""
    gso = TCPV6 if ipv6 else TCPV4
    with pods(switch, kind | SENDS, kind | RECEIVES | MERGEABLE, kind | MERGEABLE, kind) as (one, *receivers):
        before = switch.stats("p1")
        segments = -(-15000 // SIZE)
        for number, receiver in enumerate(receivers):
            packet = large(one, receiver, ipv6, sequence=0xfffff000)   # which wraps around
            send(one, packet, packet.header(gso, SIZE))
            if number == 0:
                [(head, data)] = come(receiver)
                assert (head, data) == (packet.header(gso, SIZE), packet.data)
                continue
            found = come(receiver, segments)
            assert len(found) == segments and all(head == bytes(10) for head, _ in found)
            parsed = [Parsed(data) for _, data in found]
            assert b"".join(each.payload for each in parsed) == packet.data[packet.header_length:]
            assert [each.sequence for each in parsed] == [(0xfffff000 + n * SIZE) % 2 ** 32 for n in range(segments)]
            assert [each.flags for each in parsed] == [0x10] * (segments - 1) + [0x18], "PUSH belongs to the last"
            if not ipv6:
                assert [each.identity for each in parsed] == [77 + n for n in range(segments)]
        counted = switch.stats("p1")
        sent = (15000 + segments * packet.header_length) * len(receivers)
        assert counted["tx_bytes"] - before["tx_bytes"] == sent, "the segments' bytes"
        assert switch.stats("p3")["rx_bytes"] == switch.stats("p2")["rx_bytes"] == sent // 3
        assert switch.drops("p1") == {}


def test_a_checksum_that_is_finished_is_not_touched(switch):
    """The switch computes none that it isn't asked for."""
    with pods(switch, CSUM, 0) as (one, other):
        packet = Packet(other.mac, one.mac, b"finished", partial=False)
        wrong = packet.data[:packet.start + 16] + b"\xde\xad" + packet.data[packet.start + 18:]
        one.push(packet.data, wrong)
        assert [data for _, data in come(other, 2)] == [packet.data, wrong]


BAD = {
    "a segment of 0 bytes": lambda p: p.header(TCPV4, 0),
    "an unknown type": lambda p: p.header(2, SIZE),
    "UDP's type": lambda p: p.header(UDP, SIZE),
    "a checksum behind the frame": lambda p: header(NEEDS_CSUM, start=len(p.data), offset=16),
    "a checksum across the frame's end": lambda p: header(NEEDS_CSUM, start=len(p.data) - 17, offset=16),
    "a checksum far away": lambda p: header(NEEDS_CSUM, start=0xffff, offset=0xffff),
}
UNFIT = {  # only whoever has to segment the frame finds it
    "the other address family": lambda p: p.header(TCPV6, SIZE),
    "headers longer than the frame": lambda p: header(NEEDS_CSUM, TCPV4, 0xffff, SIZE, p.start + 3900, 16),
}


@pytest.mark.parametrize("name", BAD | UNFIT)
def test_a_header_that_does_not_fit_its_frame(switch, name):
    with pods(switch, SENDS, RECEIVES | MERGEABLE, 0) as (one, agreed, plain):
        receivers = (agreed, plain) if name in BAD else (plain,)
        for receiver in receivers:
            packet = large(one, receiver, size=4000)
            send(one, packet, (BAD | UNFIT)[name](packet))
            exchange(one, receiver)
            assert receiver.take() == []
        assert switch.drops("p1") == {"bad_offload": len(receivers)}


@pytest.mark.parametrize("features", [0, CSUM, CSUM | HOST_TSO6], ids=["nothing", "checksums", "IPv6 only"])
def test_a_large_frame_of_a_pod_that_has_not_agreed_on_it(switch, features):
    with pods(switch, features, RECEIVES | MERGEABLE) as (one, other):
        packet = large(one, other, size=4000)
        send(one, packet, packet.header(TCPV4, SIZE))
        exchange(one, other)
        assert other.take() == []
        assert sum(switch.drops("p1").get(reason, 0) for reason in ("bad_offload", "too_long")) == 1


def test_a_frame_of_segments_beyond_the_receiver_s_mtu(switch):
    """The MTU applies to the segment."""
    with pods(switch, SENDS, RECEIVES | MERGEABLE) as (one, other):
        switch.call("set_port", id="p2", mac=mac(2), mtu=1000)
        for size, comes in ((1500, False), (900, True)):
            packet = large(one, other, size=9000)
            send(one, packet, packet.header(TCPV4, size))
            if comes:
                assert come(other)[0][1] == packet.data
        exchange(one, other)
        assert other.take() == []
        assert switch.drops("p2") | switch.drops("p1") == {"too_long": 1}


def test_segments_share_the_rate(switch):
    """Their bytes count, the headers that they repeat included."""
    frames = Frames(switch.path)
    with pods(switch, SENDS, RECEIVES | MERGEABLE) as (one, other):
        frames.set("p1", mac(1), max_tx_rate=10, burst=64)
        packet, before = large(one, other, size=30000), switch.stats("p1")["tx_bytes"]
        for _ in range(8):
            send(one, packet, packet.header(TCPV4, 100))   # 300 segments, 16 KB of headers
            come(other)
        assert switch.stats("p1")["tx_bytes"] - before == 8 * (30000 + 300 * packet.header_length)
    frames.close()


def test_both_of_a_broadcast_s_receivers_get_what_they_agreed_on(switch):
    with pods(switch, SENDS, RECEIVES | MERGEABLE, 0) as (one, agreed, plain):
        packet = Packet("ff:ff:ff:ff:ff:ff", one.mac, b"to all", UDP_PROTOCOL)
        send(one, packet, packet.header())
        assert come(agreed) == [(packet.header(), packet.data)]
        [(head, data)] = come(plain)
        assert head == bytes(10) and Parsed(data).payload == b"to all"


def test_offloads_out_of_the_node_and_into_it(directory):
    with wire() as name, Switch(directory, "--uplink", "uplink0", wrapper=["ip", "netns", "exec", name]) as switch:
        switch.wait_ready()
        with raw_socket(name) as outside, pods(switch, SENDS) as (pod,):
            packet = Packet(mac(0x99), pod.mac, b"out with a checksum", UDP_PROTOCOL)
            send(pod, packet, packet.header())
            _, data = receive(outside, b"out with a checksum")
            assert Parsed(data).payload == b"out with a checksum"
            packet = Packet(mac(0x99), pod.mac, b"".join(b"segment %06d " % n for n in range(200)))
            send(pod, packet, packet.header(TCPV4, 1000))
            pieces = [Parsed(receive(outside, b"segment ")[1]).payload for _ in range(3)]
            assert b"".join(pieces) == packet.data[packet.header_length:]


def test_a_whole_ring_of_large_frames(switch):
    """More segments than the receiver has buffers: the rest is dropped and counted, and nothing is mixed up."""
    with pods(switch, SENDS, 0) as (one, other):
        packet = large(one, other, size=40000)
        send(one, packet, packet.header(TCPV4, 1000))
        found = [Parsed(data) for _, data in come(other, COUNT)]
        for each in found:
            at = each.sequence - 1000
            assert each.payload == packet.data[packet.header_length + at:][:1000]
        assert len(found) + switch.drops("p2")["rx_full"] == 40
        exchange(one, other)


@KINDS
def test_offloads_through_workers(directory, kind):
    with running(directory) as node:
        for number in range(2):
            node.attach(number)
        pods_ = [node.stack.enter_context(Pod(node.datapath.socket(f"nic-{n}"), mac(n), features=kind | wanted))
                 for n, wanted in enumerate((SENDS, RECEIVES | MERGEABLE))]
        for number in range(2):
            node.control.wait_connected(f"nic-{number}")
        packet = large(*pods_, size=20000)
        send(pods_[0], packet, packet.header(TCPV4, SIZE))
        assert come(pods_[1]) == [(packet.header(TCPV4, SIZE), packet.data)]


def test_a_resource_without_offloads(directory):
    """Its pods are offered none. A guest that has agreed on them and gets a switch without: test_switch_releases.py."""
    with running(directory, offloads=False) as node:
        node.attach(0)
        with Pod(node.datapath.socket("nic-0"), mac(0)) as pod:
            assert pod.offered()[0] & (SENDS | RECEIVES) == 0
