"""A switch that is replaced under traffic by one of this or the previous release, with workers of either, as vdpa-datapath does
in updates and rollbacks. `./run soak switch` has the previous release built."""

import contextlib
import os
import pathlib
import time

import pytest

from datapath import program_of, worker_dirs_of
from neighbour import VERSION
from packets import RECEIVES, SENDS, TCPV4, Packet
from pod import COUNT, Pod, exchange, frame, mac
from support import BUILD, CACHE, wait_until
from switch import Switch
from switched_node import running
from vhost_front import EVENT_INDEX, MERGEABLE, RING_PACKED
from worker import Worker

pytestmark = [pytest.mark.packets, pytest.mark.long]
THIS, PREVIOUS = BUILD, pathlib.Path(os.environ.get("VDPA_CACHE", CACHE)) / "releases" / VERSION
KINDS = pytest.mark.parametrize("kind", [0, EVENT_INDEX, RING_PACKED, RING_PACKED | EVENT_INDEX],
                                ids=["split", "split, event index", "packed", "packed, event index"])
IN_FLIGHT = 64   # frames of a burst that a switch may have copied without giving them back


class Node:
    """A switch that can be replaced, and workers that stay."""

    def __init__(self, directory, stack):
        self.directory, self.stack, self.switch, self.ports = directory, stack, None, []
        self.apart = []   # ports whose workers don't come back

    def start(self, build):
        self.switch = self.stack.enter_context(Switch(
            self.directory, program=build / "deviceplugin/datapath/switch/vdpa-switch"))
        wait_until(self._serves, self.switch.log)
        if not self.ports:
            return
        # As vdpa-datapath does: frames wait in their rings until all workers are back.
        self.switch.call("hold", ms=8000)
        for number in self.ports:
            self.switch.add(f"p{number}", mac(number))
        for number in self.ports:
            if number not in self.apart:
                self.switch.wait_connected(f"p{number}")
        self.switch.call("go")

    def _serves(self):
        try:
            return self.switch.call("hello")["pid"] == self.switch.pid
        except (OSError, StopIteration):
            self.switch.close()
            return False

    def end(self, way):
        self.switch.close()
        self.switch.kill() if way == "killed" else self.switch.stop()

    def pod(self, build, **driver):
        number = len(self.ports) + 1
        self.ports.append(number)
        path = self.switch.add(f"p{number}", mac(number))
        worker = self.stack.enter_context(Worker(
            self.directory, name=f"worker{number}", device=f"nic-{number}", socket_name=f"p{number}.sock",
            control_name=f"p{number}.control", program=build / "deviceplugin/datapath/worker/vdpa-worker",
            **({"switch_port": path} if build is THIS else {"engine": pathlib.Path(path)})))
        pod = self.stack.enter_context(Pod(worker.wait_ready().socket, mac(number), **driver))
        pod.worker = worker
        self.switch.wait_connected(f"p{number}")
        return pod


@pytest.fixture
def node(directory):
    assert PREVIOUS.exists(), "./run soak switch builds it"
    with contextlib.ExitStack() as stack:
        yield Node(directory, stack)


class Flow:
    """Numbered frames, several at once, each only once there are buffers for all that are under way."""

    def __init__(self, sender, receiver):
        self.sender, self.receiver, self.sent, self.came, self.moved = sender, receiver, 0, [], 0

    def turn(self, send=True):
        came = [int(payload) for payload in self.receiver.payloads() if payload.isdigit()]
        self.came += came
        if came:
            self.moved = time.monotonic()
        # All have come, or the last ones are lost.
        if send and self.sender.idle() and (self.came[-1:] == [self.sent - 1] or time.monotonic() > self.moved + 0.1):
            for _ in range(COUNT // 2):
                self.sender.offer(frame(self.receiver.mac, self.sender.mac, b"%d" % self.sent, size=60 + self.sent % 1400))
                self.sent += 1

    def lost(self):
        """Frames that were overtaken."""
        return max(self.came, default=-1) + 1 - len(set(self.came))

    def twice(self):
        return len(self.came) - len(set(self.came))


@KINDS
@pytest.mark.parametrize("way", ["killed", "stopped"])
@pytest.mark.parametrize("first, second, workers", [
    (THIS, THIS, (THIS, PREVIOUS)), (PREVIOUS, THIS, (PREVIOUS, PREVIOUS)), (PREVIOUS, THIS, (PREVIOUS, THIS)),
    (THIS, PREVIOUS, (THIS, PREVIOUS))], ids=["same", "update", "update with a new pod", "rollback"])
def test_frames_while_the_switch_is_replaced(node, kind, way, first, second, workers):
    node.start(first)
    pods = [node.pod(build, features=kind) for build in workers]
    flows = [Flow(*pods), Flow(*pods[::-1])]
    exchange(*pods)
    lives = 4
    for life in range(lives):
        goal = [flow.sent + 20 * COUNT for flow in flows]

        def far(goal=goal):
            for flow, enough in zip(flows, goal):
                flow.turn(flow.sent <= enough)
            return all(flow.sent > enough for flow, enough in zip(flows, goal))
        wait_until(far, lambda life=life: f"frames in life {life}: {[(f.sent, len(f.came)) for f in flows]}\n"
                                          + "".join(pod.worker.log()[-1000:] for pod in pods), 10, 0)
        node.end(way)
        for flow in flows:   # they wait in the rings
            flow.turn()
        node.start((first, second)[(life + 1) % 2])
    for flow in flows:
        goal = flow.sent + 2 * COUNT

        def over(flow=flow, goal=goal):
            flow.turn(flow.sent < goal)
            return flow.sent >= goal and max(flow.came) == flow.sent - 1 and flow.sender.idle()
        wait_until(over, lambda flow=flow: f"the last of {flow.sent} frames; {len(flow.came)} came", 10, 0)
        bound = lives * IN_FLIGHT if way == "killed" else 0
        print(f"{flow.sent} frames, {flow.lost()} lost, {flow.twice()} twice")
        assert flow.lost() <= bound and flow.twice() <= bound, f"of {flow.sent} frames {flow.lost()} lost, {flow.twice()} twice"
        steps = [after - before for before, after in zip(flow.came, flow.came[1:])]
        assert sum(step <= 0 for step in steps) <= (lives if way == "killed" else 0), "once a switch at most"


@KINDS
def test_every_feature_that_both_have_survives(node, kind):
    """Rings that were agreed on with the previous release's switch and worker go on with the next switch."""
    node.start(PREVIOUS)
    pods = [node.pod(PREVIOUS, features=kind | MERGEABLE) for _ in range(2)]
    exchange(*pods)
    node.end("killed")
    node.start(THIS)
    for number in range(60):
        exchange(*pods, b"%d" % number, 5)


@pytest.mark.parametrize("kind", [0, RING_PACKED], ids=["split", "packed"])
def test_a_pod_with_offloads_and_an_older_switch(node, kind):
    """It waits, with the reason in its worker's state, for a switch that has them."""
    node.start(THIS)
    one, other = (node.pod(THIS, features=kind | SENDS | RECEIVES | MERGEABLE) for _ in range(2))
    plain = node.pod(PREVIOUS)

    def large():
        packet = Packet(other.mac, one.mac, os.urandom(10000))
        one.offer(packet.data, packet.header(TCPV4, 1400) + b"\0\0")
        assert wait_until(other.take, "the frame", interval=0.001) == [packet.data]
    large()
    node.end("stopped")
    node.apart = node.ports[:2]
    node.start(PREVIOUS)
    node.apart = []
    for pod in (one, other):
        wait_until(lambda pod=pod: "lacks the offloads CSUM" in pod.worker.hello()["reason"],
                   lambda pod=pod: f"a reason: {pod.worker.hello()}")
        assert pod.worker.hello()["front"] == "connected"
        assert pod.worker.hello()["engine"] == "down", "vdpa-datapath, of either release, shows the reason then"
        assert pod.worker.running()
    plain.send_to(mac(0x77), b"goes on")
    cpu = one.worker.cpu_ticks()
    quiet = time.monotonic() + 1
    wait_until(lambda: time.monotonic() > quiet, "a second", interval=0.1)
    assert one.worker.cpu_ticks() - cpu < 5, "it waits"
    node.end("stopped")
    node.start(THIS)
    large()


@contextlib.contextmanager
def rolled_back(node):
    """vdpa-datapath of the previous release takes over, and replaces the switch by its own."""
    assert PREVIOUS.exists(), "./run soak switch builds it"
    with node.datapath.restarted(program=program_of(PREVIOUS), worker_dirs=worker_dirs_of(PREVIOUS)) as datapath:
        datapath.offer()

        def replaced():
            try:
                with contextlib.closing(datapath.switch_control()) as control:
                    return control.call("hello")["version"] == VERSION
            except (OSError, StopIteration):
                return False
        wait_until(replaced, datapath.log, 20)
        yield datapath


def test_a_rollback_tells_why_a_pod_with_offloads_waits(directory):
    with running(directory) as node:
        node.attach(0)
        with Pod(node.datapath.socket(), mac(0), features=SENDS | RECEIVES | MERGEABLE):
            node.control.wait_connected("nic-0")
            with rolled_back(node) as datapath:
                wait_until(lambda: "lacks the offloads CSUM" in datapath.attachment().state, datapath.attachment)


def test_a_rollback_closes_trunks(directory):
    """To the previous release the port would be an access port, open to the pods of its VLAN."""
    with running(directory) as node:
        trunk = node.pod(0, vlan_trunk="100-110")
        plain = node.pod(1)
        with rolled_back(node) as datapath, contextlib.closing(datapath.switch_control()) as control:
            assert datapath.attachment().state.startswith("withheld")
            wait_until(lambda: [port["connected"] for port in control.call("ports")["ports"]] == [True, True],
                       lambda: f"both pods: {control.call('ports')}\n{datapath.log()}")
            assert control.port("nic-0")["link_up"] is False
            plain.send_to(mac(0), b"not for it")
            trunk.send_to(mac(1), b"nor for others")
            wait_until(lambda: control.drops("nic-0") and plain.idle(), lambda: control.drops("nic-0"))
            assert not trunk.payloads() and not plain.payloads()
