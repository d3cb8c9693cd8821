"""vdpa-datapath with devices of the dpdk backend: a vdpa-pmd for each attached one, here with the driver that needs no card."""

import contextlib
import json
import os
import signal
import subprocess

import pytest
from grpc import StatusCode

import rpc
from datapath import NEXT, WORKER_DIRS, Datapath, owner, read_json, refused, settings
from pmd import PROGRAM, programs, sysfs
from kubelet import PodResources
from support import BUILD, wait_until
from switch import Control
from testpmd import application

pytestmark = pytest.mark.packets
DEVICE = "0000:65:00.2"


def resource(devargs=""):
    return rpc.datapath.Resource(
        name="vdpa.io/nic", socket=rpc.datapath.SocketOptions(mode=0o666), devices=[rpc.datapath.Device(
            id=DEVICE, dpdk=rpc.datapath.DpdkDevice(pci_address=DEVICE, driver="ifc", devargs=devargs))])


@pytest.fixture
def scene(directory):
    with PodResources(directory), Datapath(directory, "--sysfs", sysfs(directory, DEVICE, "vfio-pci"),
                                      worker_dirs=f"{programs(directory)}:{WORKER_DIRS}") as datapath:
        datapath.wait_serving()
        datapath.set_devices(resource())
        datapath.wait_healthy(DEVICE)
        yield datapath


def pmd_pid(datapath, program=PROGRAM):
    """The pid of this run directory's vdpa-pmd, or None. Its worker names the same device, so the program must match too."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{pid}/cmdline").read().split("\0")
        except OSError:
            continue
        if words[0] == str(program) and any(str(datapath.run_dir) in word for word in words):
            return int(pid)
    return None


def test_attach_packets_detach(scene, directory):
    attachment = scene.attach(owner(), DEVICE)
    assert (attachment.backend, attachment.queue_pairs) == ("dpdk", 2)
    assert scene.check(owner(), DEVICE) == []
    with application(directory, scene.socket(DEVICE), queues=2) as app:
        app.wait_received(10000, "from the device")
    scene.detach(owner())
    assert pmd_pid(scene) is None
    assert not scene.processes()
    assert not any((scene.run_dir / "pmds").iterdir())


def test_killed_under_traffic(scene, directory):
    scene.attach(owner(), DEVICE)
    with application(directory, scene.socket(DEVICE), queues=2) as app:
        app.wait_received(10000, "before")
        for _ in range(2):
            os.kill(pmd_pid(scene), signal.SIGKILL)
            app.wait_received(10000, "after the kill")
    scene.wait_healthy(DEVICE)


def test_it_outlives_the_datapath(scene, directory):
    scene.attach(owner(), DEVICE)
    before = pmd_pid(scene)
    with application(directory, scene.socket(DEVICE), queues=2) as app:
        app.wait_received(10000, "before")
        scene.kill()
        app.wait_received(10000, "without it")
        with Datapath(directory, "--sysfs", directory / "sys", name="second",
                      worker_dirs=f"{directory}/programs:{WORKER_DIRS}") as second:
            second.wait_serving()
            app.wait_received(10000, "with the next one")
            assert pmd_pid(second) == before
            assert second.check(owner(), DEVICE) == []
            second.detach(owner())
            assert pmd_pid(second) is None


@pytest.mark.parametrize("phase", ["attaching", "detaching"])
def test_it_ends_with_an_attachment_that_was_not_finished(scene, directory, phase):
    scene.attach(owner(), DEVICE)
    scene.kill()
    record = read_json(scene.record(DEVICE))
    scene.record(DEVICE).write_text(json.dumps({**record, "phase": phase}))
    with Datapath(directory, "--sysfs", directory / "sys", name="second",
                  worker_dirs=f"{directory}/programs:{WORKER_DIRS}") as second:
        second.wait_serving()
        assert pmd_pid(second) is None and not second.record(DEVICE).exists()
        assert not any((second.run_dir / "pmds").iterdir())


def test_an_update_replaces_it_under_traffic(scene, directory):
    scene.attach(owner(), DEVICE)
    with application(directory, scene.socket(DEVICE), queues=2) as app:
        app.wait_received(10000, "before")
        scene.kill()
        with Datapath(directory, "--sysfs", directory / "sys", name="second", program=NEXT / "vdpa-datapath",
                      worker_dirs=f"{programs(directory, 'next', NEXT / 'vdpa-pmd')}:{NEXT}") as second:
            second.wait_log(f"replaced vdpa-pmd of {DEVICE}: up again after ")
            assert "running pods: 1" in second.log()
            app.wait_received(10000, "with the next one")
            assert pmd_pid(second) is None and pmd_pid(second, NEXT / "vdpa-pmd")
            assert second.check(owner(), DEVICE) == []
            second.detach(owner())
            assert pmd_pid(second, NEXT / "vdpa-pmd") is None


def test_a_driver_that_does_not_take_its_device(scene, directory):
    """The answer gives the reason, nothing is left behind, and no pod gets the device until the cause is gone."""
    scene.set_devices(resource(devargs="unknown=1"))
    with refused(StatusCode.INTERNAL, DEVICE, "vdpa_test0"):
        scene.attach(owner(), DEVICE)
    assert pmd_pid(scene) is None
    assert not scene.record(DEVICE).exists()
    wait_until(lambda: not scene.device(DEVICE).healthy, "no other pod gets it")
    assert "vdpa_test0" in scene.device(DEVICE).reason
    scene.set_devices(resource())
    scene.wait_healthy(DEVICE)  # tested again without a pod
    wait_until(lambda: pmd_pid(scene) is None, "the end of that test")
    scene.attach(owner(), DEVICE)


def test_devargs_reach_the_driver(scene, directory):
    """This devarg makes the device crash after some packets, which the pod notices only as a pause."""
    scene.set_devices(resource(devargs="crash_after=50000"))
    scene.attach(owner(), DEVICE)
    with application(directory, scene.socket(DEVICE), queues=2) as app:
        scene.wait_log(f"vdpa-pmd of {DEVICE} is not running")
        app.wait_received(10000, "after the crash")


def test_vdpa_ping_drives_the_device(scene, directory):
    """The driver of these tests sends every frame back to its sender, where nobody answers a request of his own."""
    scene.attach(owner(), DEVICE, settings(mac="02:00:00:00:00:01"))
    done = subprocess.run([BUILD / "deviceplugin/ping/vdpa-ping", "--run-dir", scene.run_dir / "devices", "measure",
                           "--timeout", "1"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and f"nobody answers a broadcast from {DEVICE}" in done.stderr
    with contextlib.closing(Control(scene.run_dir / "pmds" / DEVICE / "control.sock")) as control:
        packets = {queue["queue"]: queue["packets"] for queue in control.call("stats")["queues"]}
    assert packets[1] >= packets[0] >= 5, "sent, and received"
