"""No decision depends on wall-clock time: the clock is changed while an attachment is to be released."""

import subprocess
import time

import pytest
from datapath import Datapath, delete_namespace, network_namespace, owner
from kernel_devices import kernel, offer
from kubelet import PodResources
from support import wait_until

RELEASE = 8
DAY = 24 * 3600


def set_clock(seconds):
    subprocess.run(["date", "-s", f"@{seconds:.3f}"], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def clock():
    """A function that changes the clock; it is corrected afterwards."""
    wrong_by = []

    def move(seconds):
        wrong_by.append(seconds)
        set_clock(time.time() + seconds)
    yield move
    set_clock(time.time() - sum(wrong_by))


@pytest.mark.parametrize("seconds", [DAY, -DAY], ids=["forward", "back"])
def test_the_wall_clock_is_moved_while_a_pod_is_gone(node, directory, clock, seconds):
    first, second = node.add_vf_devices(2)
    devices = offer(kernel(first, "vdpa0"), kernel(second, "vdpa1"))
    with PodResources(directory) as kubelet, Datapath(directory, f"--release-after={RELEASE}") as datapath, \
            network_namespace() as here, network_namespace() as gone:
        kubelet.pods["default", "here"] = "vdpa.io/nic", [first]
        datapath.wait_serving().set_devices(devices)
        datapath.attach(owner("here", netns=here, pod="here"), first)
        datapath.attach(owner("gone", netns=gone, pod="gone"), second)
        began = time.monotonic()
        delete_namespace(gone)
        wait_until(lambda: datapath.attachment(second).outlook, "the pod's end is noticed", 30)
        clock(seconds)
        wait_until(lambda: datapath.attachment(second) is None, datapath.log, RELEASE + 30)
        assert time.monotonic() - began >= RELEASE
        # Records from another day are valid too.
        with datapath.restarted(f"--release-after={RELEASE}") as again:
            again.set_devices(devices)
            again.wait_healthy(first)
            assert again.attachment(first).state == "waiting"
            assert again.attachment(first).owner.pod_name == "here"
            assert again.detach(owner("here", netns=here))
