"""Rings that make rte_vhost leave its own memory, as the switches of earlier releases did: this one gets all of them, and has
the pod's port closed. And the consequences for a pod that crashes the switch all the same."""

import ctypes
import mmap
import os
import pathlib
import signal
import struct

import pytest

from datapath import owner
from guest import Guest
from packets import HOST_UFO
from pod import BUFFER, BUFFERS, COUNT, Pod, exchange, frame, mac
from support import wait_until
from switch import Refused, Switch
from switched_node import running
from testpmd import engine
from vhost_front import BASE, GET_FEATURES, INDIRECT, MERGEABLE, SET_FEATURES, SET_VRING_NUM, VERSION_1, FrontEnd
from worker import Worker

pytestmark = pytest.mark.packets


class Overflower(FrontEnd):
    """Receives into a ring whose available index is ahead by more entries than it has, nearly all of them empty: with mergeable
    buffers rte_vhost records every entry of a burst in an array as long as the ring."""

    AVAILABLE, USED, BUFFER = 0x4000, 0x5000, 0x8000

    def __init__(self, path, entries):
        super().__init__(path)
        self.negotiate(VERSION_1 | MERGEABLE | INDIRECT)
        self.share(0x20000)
        self.rings = mmap.mmap(self.memory, 0x20000)
        for entry in range(entries):
            length = 2048 if entry % 512 == 511 else 0
            struct.pack_into("<QIHH", self.rings, entry * 16, BASE + self.BUFFER, length, 2, 0)
            struct.pack_into("<H", self.rings, self.AVAILABLE + 4 + 2 * entry, entry)
        self.refill()
        self.start_ring(0, entries, parts=(0, self.AVAILABLE, self.USED))
        self.start_ring(1, parts=(0xc000, 0xd000, 0xe000))

    def refill(self):
        """The switch may take frames one by one as long as it finds entries; only several together overflow."""
        used, = struct.unpack_from("<H", self.rings, self.USED + 2)
        struct.pack_into("<H", self.rings, self.AVAILABLE + 2, used + 0x7fff & 0xffff)

    def __exit__(self, *_):
        self.rings.close()
        super().__exit__()


@pytest.mark.release
@pytest.mark.parametrize("mtu, entries", [(1500, 16), (1500, 1024), (9000, 1024)])
def test_a_ring_that_made_rte_vhost_leave_its_memory(directory, mtu, entries):
    """Bursts of frames to it: the switch's process stays the same, another pod's buffers what they were."""
    with running(directory, mtu=mtu) as node:
        one, other = node.pods(2)
        exchange(one, other, b"before")
        other.take()
        pid, buffers = node.datapath.switch_pid(), other.map.read(BASE + BUFFERS, 2 * COUNT * BUFFER)
        with Overflower(node.attach(2), entries) as hostile:
            node.control.wait_connected("nic-2")

            def closed():
                if one.idle():
                    hostile.refill()
                    for number in range(16):
                        one.offer(frame(mac(2), one.mac, b"burst %d" % number))
                return node.datapath.attachment("nic-2").state.startswith("failed: ")
            wait_until(closed, "the port to be closed", interval=0.001)
            state = node.datapath.attachment("nic-2").state
            assert "ring 0: " in state and f"buffers are available in {entries} entries" in state
            assert other.map.read(BASE + BUFFERS, len(buffers)) == buffers and other.take() == []
        exchange(one, other, b"after")
        assert node.datapath.switch_pid() == pid
        for device in ("nic-0", "nic-1"):
            wait_until(lambda: node.datapath.attachment(device).state == "running", node.datapath.log)


def crash_poller(pid):
    """Stands in for a fault that a pod would have found: its first poller gets the signal of one."""
    thread = next(int(task.name) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()
                  if (task / "comm").read_text() == "poller-0\n")
    assert ctypes.CDLL(None).tgkill(pid, thread, signal.SIGSEGV) == 0


def connected(node, device):
    """Works even while the switch is down."""
    try:
        return node.control.port(device)["connected"]
    except (OSError, StopIteration):
        node.control.close()
        return False


@pytest.fixture
def crashes(monkeypatch):
    """Programs started now may crash: a sanitizer neither handles their signals nor reports it."""
    handled = "".join(f":handle_{signal}=0" for signal in ("segv", "sigbus", "sigill", "sigfpe", "abort"))
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + handled)


@pytest.mark.release
@pytest.mark.usefixtures("crashes")
def test_the_switch_leaves_a_note_of_whom_it_served(directory):
    with Switch(directory) as switch:
        switch.wait_ready()
        with Pod(switch.add("p1", mac(1)), mac(1)) as one, Pod(switch.add("p2", mac(2)), mac(2)) as two:
            switch.wait_connected("p1")
            switch.wait_connected("p2")
            two.send_to(one.mac, b"the last")
            one.wait_payload(b"the last")
            crash_poller(switch.pid)
            wait_until(lambda: not switch.running(), "the switch to crash")
        note = (directory / "switch.serving").read_bytes()
    served, now, number = struct.unpack_from("<III", note, 64)
    assert (served >> 16, served & 0xffff) == (2, 1) and now in (0, 1) and number == signal.SIGSEGV


@pytest.mark.release
@pytest.mark.usefixtures("crashes")
def test_a_pod_that_crashes_the_switch_loses_its_port_and_the_others_go_on(directory):
    """Two pods take turns; the second does not lengthen the wait of other pods for the switch."""
    with running(directory) as node:
        one, other = node.pods(2)
        exchange(one, other, b"before")
        for number in (2, 3):
            node.attach(number)
            pid = node.datapath.switch_pid()
            with Pod(node.datapath.socket(f"nic-{number}"), mac(number)) as hostile:
                node.control.wait_connected(f"nic-{number}")
                hostile.send_to(one.mac, b"the last")
                one.wait_payload(b"the last")
                crash_poller(pid)
                wait_until(lambda: node.datapath.processes().get("vdpa.io-nic") != pid, "the switch to crash")
            node.control.close()
            reason = "vdpa-switch of vdpa.io/nic crashed with signal 11"
            closed = f"served ring 1 of nic-{number}: the port is closed for 60 s"
            node.datapath.wait_log(closed)
            wait_until(lambda: connected(node, "nic-0") and connected(node, "nic-1"), node.datapath.log)
            exchange(one, other, b"after")
            device = node.datapath.device(f"nic-{number}")
            assert not device.healthy and reason in device.reason and closed in device.reason
            state = node.datapath.attachment(f"nic-{number}").state
            assert state.startswith(f"failed: {reason}") and closed in state
            assert not os.path.exists(node.control.port(f"nic-{number}")["socket"])
        for device in ("nic-0", "nic-1"):
            assert node.datapath.device(device).healthy
            wait_until(lambda: node.datapath.attachment(device).state == "running", node.datapath.log)
        starts = [line for line in node.datapath.log().splitlines() if "next start in" in line]
        assert len(starts) == 2 and all("next start in 50 ms" in line for line in starts), starts

        # Another pod on the device is not affected.
        node.datapath.detach(owner("c2"))
        exchange(one, node.pod(2), b"the next pod")
        assert node.datapath.device("nic-2").healthy


@pytest.mark.parametrize("closed", [{"ms": 0}, {"ms": 86400001}, {"ms": 1, "crashes": 0}, 7])
def test_a_closure_that_is_none(directory, closed):
    with Switch(directory) as switch:
        with pytest.raises(Refused):
            switch.wait_ready().add("p1", mac(1), closed=closed)
        assert switch.call("ports")["ports"] == []


def test_a_closed_port_that_goes_leaves_nothing(directory):
    with Switch(directory) as switch:
        switch.wait_ready().add("p1", mac(1), closed={"ms": 60000})
        switch.call("remove_port", id="p1")
        assert [entry.name for entry in switch.ports_dir.iterdir()] == []
        assert switch.stop() == 0
    assert not (directory / "switch.serving").exists()


def test_a_port_that_is_added_closed_opens_by_itself(directory):
    with Switch(directory) as switch:
        with Pod(switch.wait_ready().add("p1", mac(1)), mac(1)) as one:
            switch.wait_connected("p1")
            path = switch.add("p2", mac(2), closed={"ms": 3000, "crashes": 2, "reason": "it crashed"})
            mark = switch.ports_dir / "p2.closed"  # by which a datapath finds a device without a socket
            closed = switch.port("p2")["closed"]
            assert not os.path.exists(path) and mark.exists()
            assert closed == {"ms": closed["ms"], "crashes": 2, "reason": "it crashed"} and 0 < closed["ms"] <= 3000
            switch.wait_log("port p2 is open again")
            wait_until(lambda: os.path.exists(path), "the socket")
            assert "closed" not in switch.port("p2") and not mark.exists()
            with Pod(path, mac(2)) as two:
                switch.wait_connected("p2")
                exchange(one, two)


@pytest.mark.parametrize("mtu", [1500, 1501, 9000])
def test_what_a_pod_of_the_switch_is_offered(directory, mtu):
    with Switch(directory, "--mtu", "9000") as switch, \
            Worker(directory, "--mtu", mtu, switch_port=switch.wait_ready().add("p1", mac(1))) as worker:
        with FrontEnd(worker.wait_ready().socket) as front:
            offered = struct.unpack("<Q", front.ask(GET_FEATURES))[0]
            assert offered & (INDIRECT | MERGEABLE | HOST_UFO) == INDIRECT | MERGEABLE
            front.send(SET_FEATURES, struct.pack("<Q", VERSION_1 | HOST_UFO))
            assert front.closed()
        worker.wait_log("SET_FEATURES: features 0x4000 are not offered; if the driver agreed on them before this node was "
                        "updated, restart the VM or the application")


@pytest.mark.parametrize("entries", [0, 1025])
def test_rings_that_the_switch_does_not_get(directory, entries):
    with Switch(directory) as switch, \
            Worker(directory, switch_port=switch.wait_ready().add("p1", mac(1))) as worker:
        with FrontEnd(worker.wait_ready().socket) as front:
            front.negotiate()
            front.send(SET_VRING_NUM, struct.pack("<II", 0, entries))
            assert front.closed()
        worker.wait_log(f"SET_VRING_NUM: ring 0 with {entries} entries; expected 1 to 1024")


@pytest.mark.parametrize("entries", [1, 2, 16, 32])
def test_the_smallest_rings_work(directory, entries):
    with Switch(directory) as switch, \
            Worker(directory, switch_port=switch.wait_ready().add("p1", mac(1))) as worker:
        with Pod(switch.add("p2", mac(2)), mac(2)) as other, \
                Pod(worker.wait_ready().socket, mac(1), entries=entries, features=INDIRECT | MERGEABLE) as one:
            switch.wait_connected("p1")
            switch.wait_connected("p2")
            for number in range(2 * entries):
                exchange(one, other, b"%d" % number)


def test_other_engines_get_every_ring_and_feature(directory):
    with Worker(directory) as worker, engine(directory, worker.engine):
        with FrontEnd(worker.wait_ready().socket) as front:
            offered = struct.unpack("<Q", front.ask(GET_FEATURES))[0]
            assert offered & (INDIRECT | MERGEABLE) == INDIRECT | MERGEABLE
            front.negotiate()
            front.acknowledged(SET_VRING_NUM, struct.pack("<II", 0, 1))


@pytest.mark.parametrize("offloads", [True, False])
def test_a_guest_that_agreed_on_more_than_is_offered_later_is_named(directory, offloads):
    """QEMU exits when a feature of its guest is missing, so the log has to explain it. Of what any engine has offered, the
    switch lacks nothing but offloads that are off by now."""
    with Switch(directory) as switch:
        port = switch.wait_ready().add("p1", mac(9))
        earlier = Worker(directory)
        earlier.engine.symlink_to(port)
        with earlier as worker:
            with Guest(directory, worker.wait_ready().socket, connection=",reconnect=1") as guest:
                wait_until(lambda: guest.counter("sent") > 2, lambda: f"packets:\n{guest.log()}\n{worker.log()}", 120)
                worker.kill()
                with Worker(directory, "--offloads", str(offloads).lower(), switch_port=port, name="later") as later:
                    if offloads:
                        sent = guest.counter("sent")
                        wait_until(lambda: guest.counter("sent") > sent + 2, lambda: f"{guest.log()}\n{later.log()}", 60)
                    else:
                        later.wait_log("the front-end disconnected after reading the offered features", 60)
                        assert "restart the VM" in later.log()
