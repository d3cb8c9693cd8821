"""Multiple queue pairs of a device, and the cost of a kick: vdpa-worker on devices of the kernel."""

import mmap
import os
import struct

import pytest
from pod import Pod, exchange, mac
from processes import switches
from support import wait_until
from switch import Control
from testpmd import device_application as application
from vhost_front import BASE, SET_VRING_ENABLE, VERSION_1, FrontEnd
from worker import kernel_worker

KICKS = 20000
PAIRS = 4
START = 180   # s: for an application, if a busy machine emulates this one
MULTIQUEUE = 1 << 22


@pytest.fixture
def two_devices(node, vendor_nic):
    """vDPA devices of four pairs on two VFs that are wired to each other."""
    for n, address in enumerate(vendor_nic.bind_vfs("mlx5_core", "mlx5_core")):
        node.add_vdpa(f"vdpa{n}", f"pci/{address}", "mac", mac(n + 1), "max_vqp", str(PAIRS))


def test_traffic_on_all_of_four_pairs(node, directory, two_devices):
    with kernel_worker(directory, "w0", node.character_device("vdpa0"), "w0", PAIRS) as w0, \
            kernel_worker(directory, "w1", node.character_device("vdpa1"), "w1", PAIRS) as w1:
        several = {"options": f",queues={PAIRS}", "queues": PAIRS}
        with application(directory, w1.wait_ready().socket, "b", "macswap", 1, **several) as b, \
                application(directory, w0.wait_ready().socket, "a", "flowgen", 0, **several) as a:
            for end in a, b:
                wait_until(lambda: all(end.counter(f"rx_q{q}_good_packets") > 100 for q in range(PAIRS)),
                           lambda: end.log()[-3000:] + w0.log()[-3000:] + w1.log()[-1500:], START)
            sent = [node.queue_statistics("vdpa0", 2 * q + 1)["packets"] for q in range(PAIRS)]
            assert min(sent) > 100, "by the device's own count"


class Receiver(FrontEnd):
    """A pod with several pairs that counts the packets it receives on each."""

    ENTRIES, BUFFERS, BUFFER = 256, 16, 0x800

    def __init__(self, path, pairs):
        super().__init__(path)
        self.pairs = pairs
        self.negotiate(VERSION_1 | MULTIQUEUE)
        self.share(0x40000)
        self.bytes = mmap.mmap(self.memory, 0)
        for pair in range(pairs):
            for entry in range(self.ENTRIES):
                buffer = BASE + 0x20000 + (pair * self.BUFFERS + entry % self.BUFFERS) * self.BUFFER
                struct.pack_into("<QIHH", self.bytes, self.ring(pair) + entry * 16, buffer, self.BUFFER, 2, 0)
                struct.pack_into("<H", self.bytes, self.ring(pair) + 0x1004 + entry * 2, entry)
        self.post()
        for index in range(2 * pairs):
            self.start_ring(index, self.ENTRIES)

    @staticmethod
    def ring(pair):
        return 2 * pair * 0x4000

    def received(self):
        return [struct.unpack_from("<H", self.bytes, self.ring(pair) + 0x2002)[0] for pair in range(self.pairs)]

    def post(self):
        """As many buffers as each ring has, after the used ones."""
        for pair, used in enumerate(self.received()):
            struct.pack_into("<H", self.bytes, self.ring(pair) + 0x1002, used + self.BUFFERS & 0xffff)

    def wait_received(self, *pairs, count=100):
        """Waits until this many more packets came on each of these pairs; returns how many came on every pair meanwhile."""
        before = self.received()
        came = [0] * self.pairs

        def enough():
            came[:] = [now - then & 0xffff for now, then in zip(self.received(), before)]
            self.post()
            return all(came[pair] >= count for pair in pairs)
        wait_until(enough, lambda: f"{count} packets on each of the pairs {pairs}: {came}", START, 0.001)
        return came

    def enable(self, pair, on):
        for index in 2 * pair, 2 * pair + 1:
            self.acknowledged(SET_VRING_ENABLE, struct.pack("<II", index, on))

    def stop(self, pair):
        """Disables a pair, as a driver does; returns the device's position in its receiving ring."""
        bases = [self.stop_ring(index) for index in (2 * pair, 2 * pair + 1)]
        for index in 2 * pair, 2 * pair + 1:
            os.close(self.kicks.pop(index))
            os.close(self.calls.pop(index))
        return bases[0]

    def restart(self, pair, base):
        self.start_ring(2 * pair, self.ENTRIES, base=base)
        self.start_ring(2 * pair + 1, self.ENTRIES)


def test_the_number_of_pairs_changes_under_traffic(node, directory, two_devices):
    """The device spreads received packets over the pairs that the worker has set."""
    with kernel_worker(directory, "w0", node.character_device("vdpa0"), "w0", PAIRS) as w0, \
            kernel_worker(directory, "w1", node.character_device("vdpa1"), "w1", PAIRS) as w1:
        with application(directory, w1.wait_ready().socket, "sender", "txonly", 1, options=f",queues={PAIRS}", queues=PAIRS), \
                Receiver(w0.wait_ready().socket, PAIRS) as pod:
            pod.wait_received(*range(PAIRS))
            for pair in 3, 2:
                pod.enable(pair, False)
            assert pod.wait_received(0, 1)[2:] == [0, 0]
            for pair in 2, 3:
                pod.enable(pair, True)
            pod.wait_received(*range(PAIRS))
            pod.enable(1, False)   # the pairs after it can't be used without it
            assert pod.wait_received(0)[1:] == [0, 0, 0]
            pod.enable(1, True)
            pod.wait_received(*range(PAIRS))
            # When a pair is disabled and enabled again, the device is stopped twice, and resumes at its positions.
            last = PAIRS - 1
            before = pod.received()
            base = pod.stop(last)
            assert base == pod.received()[last]
            assert pod.wait_received(*range(last))[last] == 0
            pod.restart(last, base)
            pod.wait_received(*range(PAIRS))
            assert max((now - then) & 0xffff for now, then in zip(pod.received(), before)) < 0x8000, "rings began from zero"
            assert "ended the front-end's session" not in w0.log()


def test_the_next_worker_and_a_pod_with_fewer_pairs(node, directory, two_devices):
    path = node.character_device("vdpa0")
    with kernel_worker(directory, "w1", node.character_device("vdpa1"), "w1", PAIRS) as w1, \
            application(directory, w1.wait_ready().socket, "sender", "txonly", 1, options=f",queues={PAIRS}", queues=PAIRS):
        with kernel_worker(directory, "w0", path, "w0", PAIRS) as w0:
            with Receiver(w0.wait_ready().socket, PAIRS) as pod:
                pod.wait_received(*range(PAIRS))
                w0.kill()
                assert pod.closed()
        with kernel_worker(directory, "w0", path, "next", PAIRS) as w0:
            for life, pairs in enumerate((2, 1, PAIRS)):
                with Receiver(w0.wait_ready().socket, pairs) as pod:
                    pod.wait_received(*range(pairs))
                wait_until(lambda life=life: w0.log().count("front-end disconnected") > life, w0.log)


def wake_ups(pid):
    """How often each thread of a process slept and was woken."""
    return {task: count for task, [count] in switches(pid, "voluntary_ctxt_switches").items()}


@pytest.fixture(params=["vp-vdpa", "mlx5_core"])
def devices(request, node):
    """
    The doorbell of a VF under vp-vdpa is a register of the emulated hardware, as a real NIC's; the test NIC's is only a
    function of its driver, which counts the kicks and records from which task they came.
    """
    if request.param == "vp-vdpa":
        node.add_vf_devices(2)
    else:
        request.getfixturevalue("two_devices")
    return request.param


def test_a_kick_runs_in_the_context_of_the_pod(node, directory, devices):
    with kernel_worker(directory, "w0", node.character_device("vdpa0"), "w0") as w0, \
            kernel_worker(directory, "w1", node.character_device("vdpa1"), "w1") as w1:
        with Pod(w0.wait_ready().socket, mac(1)) as one, Pod(w1.wait_ready().socket, mac(2)) as other:
            exchange(one, other, b"before")
            own, worker = wake_ups(os.getpid()), wake_ups(w0.pid)
            counted = node.queue_statistics("vdpa0", 1) if devices == "mlx5_core" else None
            own = wake_ups(os.getpid())   # since then only kicks
            for _ in range(KICKS):
                one.kick(1)
            assert wake_ups(os.getpid()) == own, "no thread waits for another"
            woken = sum(wake_ups(w0.pid).values()) - sum(worker.values())
            assert woken < KICKS // 1000, "no kick is relayed; the worker may have work of its own"
            if counted:
                after = node.queue_statistics("vdpa0", 1)
                assert (after["kicks"], after["kicker"]) == (counted["kicks"] + KICKS, os.getpid())
                assert after["kicker changes"] == counted["kicker changes"]
            exchange(one, other, b"after")
        control = Control(directory / "w0.control")
        control.call("hello")
        control.close()
        wait_until(lambda: wake_ups(w0.pid) != worker, "the activity that would show there: it sleeps again")
