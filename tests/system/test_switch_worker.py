"""The link and the features of a port of vdpa-switch, which vdpa-worker passes on to the pod."""

import socket
import struct

from pod import mac
from support import wait_until
from switch import Switch
from switched_node import running
from vhost_front import (CHECKSUM, GET_CONFIG, HOST_TSO4, INDIRECT, LINK_STATUS, MERGEABLE, SET_VRING_NUM, VERSION_1,
                         FrontEnd)
from worker import Worker

IN_ORDER = 1 << 35
STATUS = 1 << 16  # a protocol feature: rings would wait for the driver's status
SET_BACKEND_REQ_FD, CONFIG_CHANGE = 21, (2, 1, 0)


def link(front):
    return struct.unpack("<H", front.ask(GET_CONFIG, struct.pack("<III", 6, 2, 0) + bytes(2))[12:])[0]


def test_the_port_s_link_reaches_the_front_end(directory):
    with Switch(directory) as switch, \
            Worker(directory, switch_port=switch.wait_ready().add("p1", mac(1), link_up=False)) as worker:
        with FrontEnd(worker.wait_ready().socket) as front:
            assert front.offered()[0] & LINK_STATUS
            front.negotiate(VERSION_1, front.offered()[1] & ~STATUS)
            assert link(front) == 0
            reports, theirs = socket.socketpair()
            with reports, theirs:
                reports.settimeout(10)
                front.acknowledged(SET_BACKEND_REQ_FD, b"", [theirs.fileno()])
                for up in (True, False):
                    switch.call("set_port", id="p1", mac=mac(1), vlan=0, mtu=1500, link_up=up, spoof_check=False)
                    assert struct.unpack("<III", reports.recv(12)) == CONFIG_CHANGE
                    wait_until(lambda: link(front) == int(up), "the link's status")


def test_the_largest_ring_that_virtio_has(directory):
    with running(directory) as node:
        node.attach(0)
        with FrontEnd(node.datapath.socket()) as front:
            front.negotiate()
            front.acknowledged(SET_VRING_NUM, struct.pack("<II", 0, 32768))


def test_a_pod_gets_every_ring_and_offload(directory):
    wanted = INDIRECT | MERGEABLE | IN_ORDER | CHECKSUM | HOST_TSO4
    with Switch(directory) as switch, Worker(directory, switch_port=switch.wait_ready().add("p1", mac(1))) as worker:
        with FrontEnd(worker.wait_ready().socket) as front:
            assert front.offered()[0] & wanted == wanted
            front.negotiate(VERSION_1 | wanted)
            front.share()
            for ring in range(2):
                front.start_ring(ring, size=2)
            worker.wait_state(front="running", reason="")
