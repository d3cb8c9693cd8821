"""vdpa-worker with the kernel's engine, real VFs and real applications."""

import ctypes
import os
import re
import resource
import signal
import time

import pytest
from hardware import run
from pod import BROADCAST, Pod, exchange, frame, mac
from support import Program, wait_until
from switch import Control
from testpmd import device_application as application
from vhost_front import BASE, FrontEnd
from worker import kernel_worker


@pytest.fixture
def pair(node, directory):
    """Workers on the two ends of a wire: VF 0 and VF 1."""
    first, second = node.add_vf_devices(2)
    with kernel_worker(directory, first, node.character_device("vdpa0"), "w0") as w0, \
            kernel_worker(directory, second, node.character_device("vdpa1"), "w1") as w1:
        yield w0.wait_ready(), w1.wait_ready()


@pytest.mark.parametrize("options, packed", [("", False), (",packed_vq=1", True)])
def test_packets_both_ways_and_none_through_the_worker(pair, directory, options, packed):
    with application(directory, pair[0].socket, "a", "flowgen", 0, options) as a, \
            application(directory, pair[1].socket, "b", "macswap", 1, options) as b:
        b.wait_received(50, "from a")
        a.wait_received(50, "back from b")
        before = [worker.cpu_ticks() for worker in pair]
        a.wait_received(5000, "while the workers sleep")
        assert [worker.cpu_ticks() for worker in pair] == before
        assert max(worker.memory_kib() for worker in pair) < 8192
        assert ("RING_PACKED" in run("vdpa", "dev", "config", "show", "vdpa0")) == packed


def test_memory_comes_and_goes_under_running_rings(pair):
    """vp-vdpa's devices can't be stopped and resumed: they must not need to be."""
    with Pod(pair[0].socket, mac(1)) as one, Pod(pair[1].socket, mac(2)) as other:
        exchange(one, other, b"first")
        more = os.memfd_create("more")
        try:
            os.ftruncate(more, 0x10000)
            data = bytes(12) + frame(mac(2), mac(1), b"from the new memory")
            os.pwrite(more, data, 0x3000)
            one.set_memory((BASE, one.memory), (0x4000000, more))
            one.offer_from(0x4003000, len(data))
            other.wait_payload(b"from the new memory")
            exchange(one, other, b"with two regions")
            one.set_memory((BASE, one.memory))
        finally:
            os.close(more)
        exchange(one, other, b"with one again")


def test_memory_comes_under_the_rings_of_a_device_that_stops_and_goes_on(node, directory):
    """The simulator's can: rings that moved resume at their positions."""
    node.add_vdpa("sim0", "vdpasim_net", "mac", "02:00:00:00:00:07")
    with kernel_worker(directory, "sim0", node.character_device("sim0")) as worker:
        with Pod(worker.wait_ready().socket) as pod:
            around(pod, b"before")
            copy = os.memfd_create("copy")
            os.ftruncate(copy, os.fstat(pod.memory).st_size)
            os.pwrite(copy, pod.map.read(BASE, os.fstat(pod.memory).st_size), 0)
            pod.move(copy)
            around(pod, b"in the copy")
            pod.restart_ring(1)
            around(pod, b"after a stop")


def around(pod, payload):
    """The simulator returns frames to its own address or to the broadcast address."""
    pod.push(frame(BROADCAST, mac(1), payload))
    pod.wait_payload(payload)


def test_a_device_with_more_queue_pairs_than_its_driver_gives_it(node, directory):
    """VFs 2 and 3 report two pairs; vp-vdpa made the queues of one, so the pod gets one."""
    node.add_vf_devices(4)
    assert node.vdpa_devices()["vdpa2"]["max_vqs"] == 3
    assert "max_vq_pairs 2" in run("vdpa", "dev", "config", "show", "vdpa2")
    with kernel_worker(directory, "c", node.character_device("vdpa2"), "w2") as w2, \
            kernel_worker(directory, "d", node.character_device("vdpa3"), "w3") as w3:
        with application(directory, w2.wait_ready().socket, "c", "flowgen", 0) as c, \
                application(directory, w3.wait_ready().socket, "d", "macswap", 1) as d:
            d.wait_received(50, "from c")
            c.wait_received(50, "back from d")


class Counting(FrontEnd):
    messages = 0

    def send(self, *arguments):
        self.messages += 1
        super().send(*arguments)


def test_a_session_wakes_the_worker_by_its_messages_alone(node, directory):
    """The time beyond the kernel's part, from connect to traffic: the worker waits for its pod, but never for a timer."""
    node.add_vdpa("sim0", "vdpasim_net", "mac", "02:00:00:00:00:07")
    trace, sessions, messages = directory / "trace", 10, 0
    with kernel_worker(directory, "sim0", node.character_device("sim0")) as worker:
        worker.wait_ready()
        with Program("strace", ["strace", "--follow-forks", "--output", trace, "--attach", worker.pid], directory) as strace:
            strace.wait_log("attached")
            for number in range(sessions):
                with Counting(worker.socket) as front:
                    messages += front.running().messages
                wait_until(lambda number=number: worker.log().count("front-end disconnected") > number, worker.log)
            strace.stop()
    calls = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines()]
    waits = [call for call in calls if re.match(r"(epoll_p?wait|p?poll|p?select|.*nanosleep)\(", call)]
    assert sum("SET_VRING" in call or "VHOST" in call for call in calls) > sessions, "the trace has the engine's calls"
    assert not [call for call in waits if "nanosleep" in call or call.endswith("(Timeout)")], "it waited for a timer"
    wakes = [call for call in waits if call.startswith("epoll")]
    print(f"{messages} messages in {sessions} sessions: {len(wakes)} wake-ups, {len(calls)} system calls")
    # Besides the messages: the pod's connect and disconnect, and the timer that reports the state to the datapath.
    assert len(wakes) <= messages + 4 * sessions
    assert len(calls) <= 16 * messages


def test_an_application_is_killed_and_another_finds_the_device_clean(pair, directory):
    with application(directory, pair[1].socket, "b", "macswap", 1):
        for name in "first", "second":
            with application(directory, pair[0].socket, name, "flowgen", 0) as a:
                a.wait_received(100, "back from b")
                os.kill(a.pid, signal.SIGKILL)
                wait_until(lambda: a.process.poll() is not None, "its end")
    assert all(worker.running() for worker in pair)


def test_a_killed_worker_ends_its_session_and_the_next_gets_the_device(pair, directory, node):
    with application(directory, pair[1].socket, "b", "macswap", 1):
        with application(directory, pair[0].socket, "a", "flowgen", 0) as a:
            a.wait_received(100, "back from b")
            pair[0].process.kill()
            pair[0].process.wait()
        pair[0].socket.unlink()
        (directory / "w0.control").unlink()
        with kernel_worker(directory, "vf", node.character_device("vdpa0"), "w2") as worker:
            worker.wait_ready()
            with application(directory, worker.socket, "c", "flowgen", 0) as c:
                c.wait_received(100, "back from b")


def test_dev_del_ends_under_a_running_application(pair, directory, node):
    with application(directory, pair[0].socket, "a", "flowgen", 0):
        pair[0].wait_log("front-end connected")
        begin = time.monotonic()
        node.delete_vdpa("vdpa0", timeout=20)
        took = time.monotonic() - begin
        pair[0].wait_log("is gone")
        print(f"vdpa dev del took {took:.2f} s")
        assert took < 2   # the worker needs at most one of these seconds to close the device
        assert "vdpa0" not in node.vdpa_devices()
    assert pair[0].running()


def test_a_device_in_use_is_refused_with_the_reason(pair, directory, node):
    with kernel_worker(directory, "vf", node.character_device("vdpa0"), "late") as late:
        late.wait_log("another program has it")
        assert not late.socket.exists()
        pair[0].stop()
        late.wait_ready()  # the device was released


def test_little_lockable_memory_is_named(node, directory):
    [address] = node.add_vf_devices(1)

    def few():  # root may raise its limit unless it lacks the capability
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (64 << 10, 64 << 10))
    with kernel_worker(directory, address, node.character_device("vdpa0"), "w0",
                preexec_fn=lambda: (few(), drop_resource_capabilities())) as worker:
        worker.wait_ready()
        with application(directory, worker.socket, "a", "flowgen", 0):
            worker.wait_log("the limit of locked memory is 64 KiB")
        control = Control(directory / "w0.control")
        wait_until(lambda: control.call("hello")["front"] == "listening", "the application to go")
        state = control.call("hello")  # no other pod would succeed
        control.close()
        assert state["engine"] == "down" and "the limit of locked memory is 64 KiB" in state["reason"]


def drop_resource_capabilities():
    """Removes CAP_SYS_RESOURCE and CAP_IPC_LOCK from the bounding set and the effective set."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (24, 14):
        if libc.prctl(24, capability, 0, 0, 0) != 0:  # PR_CAPBSET_DROP
            raise OSError(ctypes.get_errno(), "cannot drop a capability")


@pytest.mark.parametrize("case", ["truncated", "beyond", "stale"])
def test_a_pod_that_breaks_the_rules_ends_its_own_session(pair, directory, case):
    with FrontEnd(pair[0].socket) as front:
        if case == "truncated":
            front.negotiate(1 << 32)
            front.share(0x20000)
            os.ftruncate(front.memory, 0)
            start_both(front)
            pair[0].wait_log("ended the front-end's session")
        elif case == "beyond":
            front.socket.sendall(b"\xff" * 12)
            pair[0].wait_log("ended the front-end's session")
        else:
            front.negotiate(1 << 32)
    # The next pod finds the device in its initial state.
    with application(directory, pair[1].socket, "b", "macswap", 1), \
            application(directory, pair[0].socket, "a", "flowgen", 0) as a:
        a.wait_received(100, "back from b")


def start_both(front):
    try:
        front.start_ring(0)
        front.start_ring(1)
    except (OSError, AssertionError):
        pass  # the session may have ended before the second


def test_the_simulator_serves_an_application(node, directory):
    node.add_vdpa("sim0", "vdpasim_net", "mac", "02:00:00:00:00:07")
    with kernel_worker(directory, "sim0", node.character_device("sim0")) as worker:
        with Pod(worker.wait_ready().socket) as pod:
            around(pod, b"around")
