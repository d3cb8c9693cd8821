"""QEMU as the worker's front-end: a Linux guest's virtio-net, whose driver behaves unlike DPDK's."""

import pytest

from guest import Guest
from support import wait_until
from test_worker import Worker
from testpmd import engine

pytestmark = pytest.mark.packets


@pytest.mark.parametrize("options", ["", ",packed=on"], ids=["split", "packed"])
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
