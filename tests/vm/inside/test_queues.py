"""Several queue pairs of a device, and what a kick costs: vdpa-worker on devices of the kernel."""

import os

import pytest
from pod import Pod, exchange, mac
from processes import switches
from support import wait_until
from switch import Control
from testpmd import device_application as application
from worker import kernel_worker

KICKS = 20000
PAIRS = 4


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
                           lambda: end.log()[-3000:] + w0.log()[-3000:] + w1.log()[-1500:], 60)
            sent = [node.queue_statistics("vdpa0", 2 * q + 1)["packets"] for q in range(PAIRS)]
            assert min(sent) > 100, "by the device's own count"


def wake_ups(pid):
    """How often each thread of a process slept and was woken."""
    return {task: count for task, [count] in switches(pid, "voluntary_ctxt_switches").items()}


@pytest.fixture(params=["vp-vdpa", "mlx5_core"])
def devices(request, node):
    """
    The doorbell of a VF under vp-vdpa is a register of the emulated hardware, as a NIC's; the test NIC's is only a
    function of its driver, which counts the kicks and says from which task they came.
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
            assert wake_ups(os.getpid()) == own, "nobody is waited for"
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
        assert wake_ups(w0.pid) != worker, "what it does is seen there"
