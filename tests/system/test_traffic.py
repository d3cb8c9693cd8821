"""Packets between pods through a real vdpa-datapath, its workers and its switch."""

import os
import signal
import statistics
import struct
import time

import pytest

from pod import BROADCAST, COUNT, Pod, exchange, frame, mac
from support import wait_until
from switched_node import node, running  # noqa: F401 (a fixture)
from testpmd import RINGS, Testpmd
from vhost_front import SET_MEM_TABLE, FrontEnd

pytestmark = pytest.mark.packets


# --- whole applications

@RINGS
@pytest.mark.release
@pytest.mark.parametrize("queues", [1, 2])
def test_packets_flow(directory, ring, queues):
    with running(directory, queue_pairs=queues) as node:
        node.attach(0)
        node.attach(1)
        sender, _ = node.pair(queues=queues, ring=ring)
        sender.wait_received(10000, "back and forth")
        for queue in range(queues):
            wait_until(lambda: sender.counter(f"rx_q{queue}_good_packets") > 1000,
                       lambda: f"packets on queue {queue}:\n{sender.log()[-3000:]}")


@RINGS
def test_an_application_is_killed_and_starts_again_on_its_socket(node, ring):
    node.attach(0)
    node.attach(1)
    sender, echo = node.pair(ring=ring)
    for life in range(3):
        sender.wait_received(5000, f"before kill {life}")
        echo.kill()
        node.control.wait_connected("nic-1", False)
        echo = node.stack.enter_context(node.testpmd(1, f"echo{life}", "macswap", ring=ring))
    sender.wait_received(5000, "after the last")
    assert sender.log().count("Configuring Port 0") == 1


@RINGS
def test_the_switch_is_killed_under_traffic(node, ring):
    """The applications need no action and notice only a gap."""
    node.attach(0)
    node.attach(1)
    sender, echo = node.pair(ring=ring)
    for life in range(2):
        sender.wait_received(5000, f"before kill {life}")
        killed = node.datapath.switch_pid()
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: node.datapath.processes().get("vdpa.io-nic", killed) != killed, "another switch")
        sender.wait_received(5000, f"after kill {life}")
    assert sender.running() and echo.running()


@pytest.mark.release
def test_the_gap_when_the_switch_is_killed(node):
    one, other = node.pods(2)
    gaps = []
    for life in range(3):
        exchange(one, other, b"before")
        os.kill(node.datapath.switch_pid(), signal.SIGKILL)
        start = time.monotonic()

        def passes():
            if one.idle():
                one.offer(frame(other.mac, one.mac, b"after %d" % life))
            return b"after %d" % life in other.payloads()
        wait_until(passes, "packets through another switch")
        gaps.append(time.monotonic() - start)
    assert statistics.median(gaps) < 3, gaps


class Stream:
    """Sends bursts of as many frames as the receiver has buffers, each once all of the last have arrived."""

    def __init__(self, sender, receiver):
        self.sender, self.receiver = sender, receiver
        self.sent, self.came, self.bursts = 0, [], 0

    def turn(self):
        self.came += self.receiver.payloads()
        if len(self.came) == self.sent and self.sender.idle():
            for number in range(self.sent, self.sent + COUNT):
                self.sender.offer(frame(self.receiver.mac, self.sender.mac, b"%d" % number))
            self.sent += COUNT
            self.bursts += 1

    def whole(self):
        self.came += self.receiver.payloads()
        return len(self.came) >= self.sent


@pytest.mark.release
def test_an_update_loses_no_packet_of_a_burst(node):
    """They wait in the pods' rings until the next version's switch takes them, and arrive once and in order."""
    one, other = node.pods(2)
    streams = [Stream(one, other), Stream(other, one)]
    exchange(one, other)
    old = node.datapath.switch_pid()
    node.datapath.kill()
    with node.datapath.updated() as second:
        def replaced():
            for stream in streams:
                stream.turn()
            return "replaced vdpa-switch of vdpa.io/nic" in second.log()
        wait_until(replaced, second.log, 60, 0.001)
        assert second.switch_pid() != old
        assert "running pods: 2" in second.log()
        bursts = [stream.bursts for stream in streams]

        def two_more():
            """The last burst before it is complete then."""
            for stream, before in zip(streams, bursts):
                if stream.bursts < before + 2:
                    stream.turn()
            return all(stream.bursts == before + 2 and stream.whole() for stream, before in zip(streams, bursts))
        wait_until(two_more, lambda: f"{[(s.sent, len(s.came)) for s in streams]} frames sent and received\n{second.log()}",
                   30, 0.001)
        for stream in streams:
            assert stream.came == [b"%d" % number for number in range(stream.sent)]


def test_two_attachments_in_one_application(node):
    node.attach(0)
    node.attach(1)
    vdevs = [f"net_virtio_user{n},path={node.datapath.socket(f'nic-{n}')},mac={mac(n)}" for n in (0, 1)]
    with Testpmd("both", node.datapath.directory, vdevs, "macswap",
                 arguments=["--port-topology=loop", "--tx-first", f"--eth-peer=0,{mac(1)}",
                            f"--eth-peer=1,{mac(0)}"]) as both:
        for port in (0, 1):
            wait_until(lambda: both.received(port) > 1000, lambda: f"packets on port {port}:\n{both.log()[-3000:]}")


@RINGS
def test_learning_vlans_and_spoof_check_with_applications(node, ring):
    """The receivers of two applications' packets, as two others see them."""
    stranger = mac(0x77)   # not a port's own address: it is learned from the reply
    beside, apart = node.pod(2), node.pod(3, vlan=20)
    sender_socket = node.attach(0, spoof_check=True)
    node.attach(1)

    def sending(name, address):
        return Testpmd(name, node.datapath.directory, [
            f"net_virtio_user0,path={sender_socket},mac={address},packed_vq={int(ring == 'packed')}"], "txonly",
            arguments=[f"--eth-peer=0,{stranger}"])
    with sending("sender", mac(0)) as sender:
        wait_until(beside.take, lambda: f"frames to an unknown address, besides:\n{sender.log()[-3000:]}")
        echo = node.stack.enter_context(node.testpmd(1, "echo", "macswap", ring=ring))
        echo.wait_received(5000, "everywhere, until its answers have taught the switch")
        beside.take()
        echo.wait_received(5000, "at the learned address")
        assert beside.take() == []
    node.control.wait_connected("nic-0", False)
    before = node.control.stats("nic-1")["rx_packets"]
    with sending("liar", mac(9)):
        wait_until(lambda: node.control.drops("nic-0").get("spoofed", 0) > 5000, lambda: node.control.stats("nic-0"))
    assert node.control.stats("nic-1")["rx_packets"] == before
    assert apart.take() == [] and node.control.drops("nic-3") == {}


# --- pods that do what no application does, beside others whose packets must keep flowing

def test_second_connection_is_refused(node):
    one, other, *_ = node.pods(2)
    for _ in range(10):
        with FrontEnd(node.datapath.socket("nic-0")) as second:
            assert second.closed()
    exchange(one, other)


@pytest.mark.parametrize("data", [b"\x05", struct.pack("<III", SET_MEM_TABLE, 1, 72), b"\xff" * 200],
                         ids=["a byte", "a header", "nonsense"])
def test_half_a_message_hits_its_own_port_only(node, data):
    one, other = node.pods(2)
    node.attach(2)
    with FrontEnd(node.datapath.socket("nic-2")) as hostile:
        hostile.socket.sendall(data)
        exchange(one, other)
    exchange(one, node.connect(2), b"again")


def test_a_pod_that_comes_and_goes_fills_no_log(node):
    socket = node.attach(0)

    def told():
        return [line for line in node.datapath.log().splitlines() if " debug " not in line]
    before = told()
    for _ in range(500):
        with Pod(socket, mac(0)):
            pass
    assert told() == before


def test_truncated_memory_hits_its_own_port_only(node):
    one, other, hostile = node.pods(3)
    exchange(one, hostile, b"before")
    os.ftruncate(hostile.memory, 0)
    one.send_to(hostile.mac, b"into nothing")
    exchange(one, other, b"after")
    assert hostile.closed()
    exchange(one, node.connect(2), b"again")


def test_a_call_eventfd_that_blocks_hits_its_own_port_only(node):
    """The worker makes it non-blocking; a pod can undo that."""
    one, other, hostile = node.pods(3)
    exchange(one, hostile, b"before")
    call = hostile.calls[0]
    os.set_blocking(call, False)
    os.eventfd_read(call)
    os.eventfd_write(call, 2 ** 64 - 2)
    exchange(one, other, b"full")
    one.send_to(hostile.mac, b"not announced, no harm")
    exchange(one, hostile, b"read by polling")
    os.set_blocking(call, True)
    one.send_to(hostile.mac, b"never announced")
    exchange(one, other, b"blocking")
    node.control.wait_connected("nic-2", False)
    hostile.socket.close()
    exchange(one, node.connect(2), b"again")


# --- the functions of a switch

def test_unknown_and_broadcast_go_to_all_and_what_is_learned_to_one(node):
    one, other, third = node.pods(3)
    stranger = mac(0x77)
    one.send_to(BROADCAST, b"broadcast")
    one.send_to("33:33:00:00:00:01", b"multicast")
    one.send_to(stranger, b"unknown")
    for pod in (other, third):
        assert pod.wait_payload(b"unknown") == [b"broadcast", b"multicast", b"unknown"]

    other.send_to(one.mac, b"I am here", sender=stranger)
    assert one.wait_payload(b"I am here") == [b"I am here"]  # and not its own frames
    one.send_to(third.mac, b"own")
    assert third.wait_payload(b"own") == [b"own"]
    one.send_to(stranger, b"learned")
    assert other.wait_payload(b"learned") == [b"learned"]

    third.send_to(one.mac, b"moved", sender=stranger)
    one.wait_payload(b"moved")
    one.send_to(stranger, b"after the move")
    assert third.wait_payload(b"after the move") == [b"after the move"]  # and none of the frames before
    one.send_to(other.mac, b"end")
    assert other.wait_payload(b"end") == [b"end"]


def test_a_pod_can_t_take_another_s_address(node):
    one, other, thief = node.pods(3)
    thief.send_to(one.mac, b"it's me", sender=other.mac)
    one.wait_payload(b"it's me")
    one.send_to(other.mac, b"for the owner")
    assert other.wait_payload(b"for the owner") == [b"for the owner"]
    one.send_to(thief.mac, b"end")
    assert thief.wait_payload(b"end") == [b"end"]


def test_vlans_are_apart(node):
    red = [node.pod(0, vlan=10), node.pod(1, vlan=10)]
    blue = [node.pod(2, vlan=20), node.pod(3, vlan=20)]
    red[0].send_to(BROADCAST, b"red broadcast")
    red[0].send_to(blue[0].mac, b"red to blue")
    red[0].send_to(mac(0x77), b"red unknown", vlan=20)  # a pod can't choose its VLAN
    red[0].send_to(BROADCAST, b"red end")
    assert red[1].wait_payload(b"red end") == [b"red broadcast", b"red to blue", b"red end"]
    blue[1].send_to(BROADCAST, b"blue end")
    assert blue[0].wait_payload(b"blue end") == [b"blue end"]
    assert blue[1].payloads() == []
    assert node.control.drops("nic-0") == {"vlan": 1}
    exchange(*red)
    exchange(*blue)


def test_spoof_check(node):
    checked, free, receiver = node.pod(0, spoof_check=True), node.pod(1), node.pod(2)
    for pod in (checked, free):
        pod.send_to(receiver.mac, b"made up", sender=mac(0x77))
        pod.send_to(receiver.mac, b"as a group", sender="03:00:00:00:00:01")
        pod.send_to(receiver.mac, b"honest")
    came = receiver.wait_payload(b"honest")
    if came.count(b"honest") < 2:
        came += receiver.wait_payload(b"honest")
    assert sorted(came) == [b"honest", b"honest", b"made up"]
    assert node.control.drops("nic-0") == {"spoofed": 2}
    assert node.control.drops("nic-1") == {"spoofed": 1}


def test_link_state(node):
    one, other = node.pod(0), node.pod(1, link_state="disable")
    one.send_to(other.mac, b"into a link that is down")
    other.send_to(one.mac, b"out of a link that is down")
    assert node.control.drops("nic-1") == {"link_down": 2}
    up = node.pod(2)
    exchange(one, up)
    assert other.payloads() == []


def test_mtu(node):
    large, small = node.pod(0), node.pod(1, mtu=1000)
    large.send_to(small.mac, b"fits", size=1014)
    large.send_to(small.mac, b"too long", size=1015)
    large.send_to(small.mac, b"end")
    assert small.wait_payload(b"end") == [b"fits", b"end"]
    small.send_to(large.mac, b"fits", size=1014)
    small.send_to(large.mac, b"too long", size=1015)
    small.send_to(large.mac, b"end")
    assert large.wait_payload(b"end") == [b"fits", b"end"]
    assert node.control.drops("nic-1") == {"too_long": 2}


@pytest.mark.parametrize("data", [b"", b"x", frame(mac(1), mac(0))[:13], bytes(14)],
                         ids=["empty", "byte", "short", "zeros"])
def test_frames_that_are_none(node, data):
    one, other = node.pods(2)
    one.push(data)
    exchange(one, other)
    assert node.control.drops("nic-0") == ({"runt": 1} if len(data) < 14 else {})
