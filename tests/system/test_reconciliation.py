"""Orphaned attachments: when a real vdpa-datapath detaches them, and when it never does."""

import signal
from concurrent import futures

import grpc
import pytest

from datapath import Datapath, delete_namespace, network_namespace, owner
from kubelet import PodResources
from support import wait_until

QUICK = "--release-after=1"


@pytest.fixture
def datapath(directory):
    with Datapath(directory, QUICK) as program:
        program.wait_serving().offer().wait_healthy()
        yield program


def wait_outlook(datapath, words, device="nic-0"):
    wait_until(lambda: words in datapath.attachment(device).outlook, lambda: str(datapath.attachment(device)))


def wait_gone(datapath, device="nic-0"):
    wait_until(lambda: datapath.attachment(device) is None, lambda: str(datapath.attachment(device)))


def test_by_default_an_abandoned_device_is_kept_for_half_a_minute(directory):
    with network_namespace() as netns, PodResources(directory), Datapath(directory) as datapath:
        datapath.wait_serving().offer().wait_healthy()
        datapath.attach(owner(netns=netns, pod="pod"))
        delete_namespace(netns)
        wait_outlook(datapath, "abandoned: detached in ")
        assert datapath.attachment("nic-0").outlook in [f"abandoned: detached in {left} s" for left in range(20, 31)]


def test_nothing_is_detached_because_the_kubelet_lists_nothing(datapath, directory):
    """As after a kubelet restart while the API server is away: PodResources is empty, and the pods run."""
    with network_namespace() as running, network_namespace() as gone, PodResources(directory):
        datapath.attach(owner("c0", netns=running, pod="runs"), "nic-0")
        worker = datapath.worker_pid()
        # A witness that both have been checked: this one is gone.
        datapath.attach(owner("c1", netns=gone, pod="lost"), "nic-1")
        delete_namespace(gone)
        wait_gone(datapath, "nic-1")
        assert datapath.attachment("nic-0").outlook == ""
        assert datapath.worker_pid() == worker and datapath.socket().exists()
        assert datapath.check(owner("c0", netns=running, pod="runs")) == []


def test_an_attachment_stays_while_the_kubelet_lists_its_pod(datapath, directory):
    with network_namespace() as netns, PodResources(directory) as kubelet:
        kubelet.pods = {("default", "pod"): ("vdpa.io/nic", ["nic-0"])}
        datapath.attach(owner(netns=netns, pod="pod"))
        delete_namespace(netns)
        wait_outlook(datapath, "kept while the kubelet lists the device for its pod")
        worker = datapath.worker_pid()
        kubelet.pods = {("default", "other"): ("vdpa.io/nic", ["nic-0"])}
        wait_gone(datapath)
        assert "nic-0" not in datapath.processes(), worker


def test_the_grace_period_is_announced(directory):
    with Datapath(directory) as datapath, network_namespace() as netns, PodResources(directory):
        datapath.wait_serving().offer().wait_healthy()
        datapath.attach(owner(netns=netns, pod="lost"))
        delete_namespace(netns)
        wait_outlook(datapath, "abandoned: detached in ")
        seconds = int(datapath.attachment().outlook.split()[3])
        assert 0 < seconds <= 30, "the default grace period"
        # The next Attach doesn't wait for it.
        datapath.attach(owner("next", pod="next"))
        assert datapath.attachment().outlook == ""


def test_a_kubelet_that_is_away_is_waited_for(datapath, directory):
    with network_namespace() as netns, network_namespace() as plain:
        datapath.attach(owner(netns=netns, pod="lost"))
        datapath.attach(owner("c1", netns=plain), "nic-1")  # not a Kubernetes pod: no one else can be asked
        delete_namespace(netns)
        delete_namespace(plain)
        wait_gone(datapath, "nic-1")
        wait_outlook(datapath, f"kept until the kubelet answers: cannot ask the kubelet for its pods' devices on "
                               f"{directory}/pods.sock")
        with PodResources(directory):
            wait_gone(datapath)


def test_a_kubelet_without_pod_resources(datapath, directory):
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_insecure_port(f"unix:{directory}/pods.sock")
    server.start()
    try:
        with network_namespace() as netns:
            datapath.attach(owner(netns=netns, pod="lost"))
            delete_namespace(netns)
            wait_outlook(datapath, "kept until the kubelet answers")
    finally:
        server.stop(None)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_same_when_the_datapath_was_down_and_the_plugin_still_is(datapath, directory, end):
    with network_namespace() as lost, network_namespace() as listed, network_namespace() as running, \
            PodResources(directory) as kubelet:
        datapath.attach(owner("c0", netns=lost, pod="lost"), "nic-0")
        datapath.attach(owner("c1", netns=listed, pod="listed"), "nic-1")
        datapath.attach(owner("c2", netns=running, pod="runs"), "nic-2")
        datapath.process.send_signal(end)
        datapath.process.wait(10)
        delete_namespace(lost)
        delete_namespace(listed)
        kubelet.pods = {("default", "listed"): ("vdpa.io/nic", ["nic-1"])}
        with Datapath(directory, QUICK, name="second") as second:
            second.wait_serving()
            wait_gone(second, "nic-0")
            wait_outlook(second, "kept while the kubelet lists the device for its pod", "nic-1")
            assert sorted(second.processes()) == ["nic-1", "nic-2", "vdpa.io-nic"]
            second.offer().wait_healthy()
            assert sorted(second.processes()) == ["nic-1", "nic-2", "vdpa.io-nic"]
            second.attach(owner("c3"), "nic-0")


def test_a_resource_that_is_gone_while_a_pod_has_its_device(datapath, directory):
    """The node's label or the configuration is removed: the pod keeps its device, and the pod's end frees it."""
    with network_namespace() as netns, PodResources(directory):
        datapath.attach(owner(netns=netns, pod="pod"))
        running = datapath.processes()
        datapath.set_devices()
        datapath.kill()
        with Datapath(directory, QUICK, name="second") as second:
            second.wait_serving().set_devices()
            assert second.processes() == running
            delete_namespace(netns)
            wait_gone(second)
            wait_until(lambda: not second.processes(), lambda: str(second.processes()))
            assert not list((second.run_dir / "devices").iterdir())
