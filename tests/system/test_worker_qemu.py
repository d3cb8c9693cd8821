"""QEMU as the worker's front-end: a Linux guest's virtio-net, whose driver behaves differently from DPDK's."""

import os
import signal

import pytest

from datapath import owner, settings
from guest import Guest
from pod import frame, mac
from support import wait_until
from switched_node import running
from worker import Worker
from testpmd import engine

pytestmark = pytest.mark.packets
RINGS = pytest.mark.parametrize("options", ["", ",packed=on"], ids=["split", "packed"])


@RINGS
def test_guest(directory, options):
    """Packets both ways, also after the engine was killed; the guest's end frees the socket."""
    with Worker(directory) as worker:
        first = engine(directory, worker.engine)
        with first:
            worker.wait_ready()
            with Guest(directory, worker.socket, options) as guest:
                def exchange(switch, what):
                    received, sent = guest.counter("received"), guest.counter("sent")
                    wait_until(lambda: guest.counter("received") > received + 2 and guest.counter("sent") > sent + 2,
                               lambda: f"packets {what}:\n{guest.log()}\n{worker.log()}", 120)
                    wait_until(lambda: switch.received() > 2, lambda: f"packets in the engine:\n{switch.log()[-2000:]}")
                exchange(first, "before")
                assert "mac 02:00:00:00:00:09" in guest.log()
                first.kill()
                worker.wait_state(engine="down", front="connected")
                with engine(directory, worker.engine, name="second") as second:
                    exchange(second, "after the engine was killed")
                    guest.kill()
                    worker.wait_state(front="listening", engine="up")
                assert "ended the front-end's session" not in worker.log()


@RINGS
def test_a_guest_and_a_pod_on_one_switch(directory, options):
    """Also after the switch was killed, which the guest doesn't notice."""
    with running(directory) as node:
        node.datapath.attach(owner("guest"), "nic-1", settings(mac=mac(9)))
        peer = node.pod(0)
        with Guest(directory, node.datapath.socket("nic-1"), options) as guest:
            def exchange(what):
                before = guest.counter("received")

                def answered():
                    if peer.take() and peer.idle():
                        peer.offer(frame(mac(9), peer.mac, b"answer"))
                    return guest.counter("received") > before + 2
                wait_until(answered, lambda: f"packets {what}:\n{guest.log()}\n{node.datapath.log()}", 120)
            exchange("before")
            killed = node.datapath.switch_pid()
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: node.datapath.processes().get("vdpa.io-nic", killed) != killed, "another switch")
            exchange("after the switch was killed")
            assert node.datapath.attachment("nic-1").state == "running"
