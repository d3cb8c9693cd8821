"""DPDK's virtio-user as the pods' driver, with each of its receive and transmit paths, through workers and switch. All kinds
are ports of one process, since its start takes longest."""

import os
import struct

import pytest

from packets import GUEST_CSUM, RECEIVES, SENDS, TCPV4, UDP_PROTOCOL, Packet, Parsed, checksum
from pod import Pod, mac
from support import wait_until
from switched_node import running
from testpmd import Testpmd
from vhost_front import MERGEABLE

pytestmark = [pytest.mark.packets, pytest.mark.release]

# Options of the vdev, and what DPDK logs of the path that it takes (set_rxtx_funcs() in drivers/net/virtio/virtio_ethdev.c).
KINDS = {
    "split": ("mrg_rxbuf=0,in_order=0", "using standard Rx path"),
    "split, mergeable": ("mrg_rxbuf=1,in_order=0", "using mergeable buffer Rx path"),
    "split, in order": ("mrg_rxbuf=0,in_order=1", None),
    "split, in order, mergeable": ("mrg_rxbuf=1,in_order=1", None),
    "split, vectorised": ("mrg_rxbuf=0,in_order=0,vectorized=1", "using vectorized Rx path"),
    "packed": ("packed_vq=1,mrg_rxbuf=0,in_order=0", "using packed ring standard Rx path"),
    "packed, mergeable": ("packed_vq=1,mrg_rxbuf=1,in_order=0", "using packed ring mergeable buffer Rx path"),
    "packed, in order": ("packed_vq=1,mrg_rxbuf=0,in_order=1", None),
    "packed, in order, mergeable": ("packed_vq=1,mrg_rxbuf=1,in_order=1", None),
    "packed, vectorised": ("packed_vq=1,mrg_rxbuf=0,in_order=1,vectorized=1", None),
    "small rings": ("queue_size=64", None),
    "large rings": ("queue_size=1024,packed_vq=1", None),
}


def loops(node, kinds, queues=1, name="loops"):
    """Two ports of each kind in one application, which returns each frame that it receives."""
    vdevs, peers = [], []
    for number in range(2 * len(kinds)):
        node.attach(number)
        options = f"path={node.datapath.socket(f'nic-{number}')},mac={mac(number)},queues={queues},{kinds[number // 2]}"
        vdevs.append(f"net_virtio_user{number},{options}")
        peers.append(f"--eth-peer={number},{mac(number ^ 1)}")
    return Testpmd(name, node.datapath.directory, vdevs, "macswap", queues, memory=512,
                   eal=["--log-level=pmd.net.virtio.init:debug"],
                   arguments=["--port-topology=loop", "--tx-first", "--total-num-mbufs=40000", *peers])


def test_every_path_of_the_driver(directory):
    with running(directory, count=2 * len(KINDS)) as node:
        with loops(node, [options for options, _ in KINDS.values()]) as testpmd:
            for number in range(2 * len(KINDS)):
                kind = list(KINDS)[number // 2]
                wait_until(lambda number=number: testpmd.received(number) > 500,
                           lambda kind=kind: f"frames with {kind}:\n{testpmd.log()[-3000:]}", 120, 0.1)
            for number in range(2 * len(KINDS)):
                assert node.control.drops(f"nic-{number}") == {}, list(KINDS)[number // 2]
            lines = testpmd.log().splitlines()
            for number, (kind, (_, path)) in enumerate(KINDS.items()):
                for port in (2 * number, 2 * number + 1):
                    assert path is None or any(line.endswith(f"{path} on port {port}") for line in lines), \
                        f"{kind}: {[line for line in lines if line.endswith(f'on port {port}')]}"


@pytest.mark.parametrize("queues", [2, 8])
def test_several_queue_pairs(directory, queues):
    """Frames go around on each. DPDK's driver knows no more; test_guests.py has sixteen."""
    with running(directory, queue_pairs=queues) as node:
        with loops(node, ["", "packed_vq=1"], queues) as testpmd:
            for port in range(4):
                for queue in range(queues):
                    wait_until(lambda port=port, queue=queue: testpmd.counter(f"rx_q{queue}_good_packets", port) > 100,
                               lambda port=port, queue=queue: f"frames on queue {queue} of port {port}:\n"
                                                              f"{testpmd.log()[-3000:]}", 120, 0.1)


# --- offloads

COMMANDS = """
port stop 0
csum set tcp hw 0
csum set udp hw 0
tso set {size} 0
port start 0
"""


def checksummer(node, name, ring, size=1000):
    """An application that returns each frame with its checksum left to the device, and TCP's larger ones to be segmented."""
    script = node.datapath.directory / f"{name}.testpmd"
    # UDP_CKSUM, TCP_CKSUM, TCP_LRO, SCATTER; --enable-rx-cksum asks for the one of IPv4 too, which no virtio device has.
    script.write_text(COMMANDS.format(size=size))
    vdev = f"net_virtio_user0,path={node.datapath.socket('nic-1')},mac={mac(1)}{ring}"
    return Testpmd(name, node.datapath.directory, [vdev], "csum", memory=256, arguments=[
        "--rx-offloads=0x201c", f"--eth-peer=0,{mac(0)}", f"--cmdline-file={script}"])


@pytest.mark.parametrize("ring", ["", ",packed_vq=1"], ids=["split", "packed"])
def test_checksums_and_segments(directory, ring):
    """A pod that agreed on all, one that agreed on checksums, and one on nothing get the same bytes back."""
    with running(directory) as node:
        node.attach(0)
        node.attach(1)
        with checksummer(node, "csum", ring) as testpmd:
            testpmd.wait_log("Port statistics", 60)
            node.control.wait_connected("nic-1")
            for features in (SENDS | RECEIVES | MERGEABLE, SENDS | GUEST_CSUM | MERGEABLE, SENDS):
                with Pod(node.datapath.socket("nic-0"), mac(0), features=features) as pod:
                    node.control.wait_connected("nic-0")
                    _udp(pod)
                    for size in (10, 1000, 12000):
                        _tcp(pod, size, bool(features & RECEIVES & ~GUEST_CSUM))
                node.control.wait_connected("nic-0", False)
            assert node.control.drops("nic-1") == node.control.drops("nic-0") == {}


def _udp(pod):
    packet = Packet(mac(1), pod.mac, b"there and back", UDP_PROTOCOL)
    pod.offer(packet.data, packet.header() + b"\0\0")
    [(head, data)] = wait_until(pod.take_with_headers, "the datagram", interval=0.001)
    if head[0] & 1:   # it is for us to finish
        assert pod.features & GUEST_CSUM
        data = _finished(head, data)
    assert Parsed(data).payload == b"there and back"


def _tcp(pod, size, whole):
    packet = Packet(mac(1), pod.mac, os.urandom(size))
    pod.offer(packet.data, packet.header(*((TCPV4, 1400) if size > 1400 else ())) + b"\0\0")
    came = []

    def back():
        came.extend(pod.take_with_headers())
        return sum(len(data) - packet.header_length for _, data in came) >= size
    wait_until(back, lambda: f"{size} bytes; {[len(data) for _, data in came]}", 20, 0.001)
    assert len(came) == 1 if whole or size <= 1000 else len(came) >= size // 1000
    pieces = {}
    for head, data in came:
        parsed = Parsed(_finished(head, data) if head[0] & 1 else data)
        pieces[parsed.sequence] = parsed.payload
    assert b"".join(pieces[at] for at in sorted(pieces))[:size] == packet.data[packet.header_length:]


def _finished(head, data):
    """The frame with the checksum that its header describes (virtio 1.2, 5.1.6.4.1)."""
    start, offset = struct.unpack_from("<HH", head, 6)
    value = 0xffff - checksum(data[start:])
    return data[:start + offset] + struct.pack("!H", value) + data[start + offset + 2:]
