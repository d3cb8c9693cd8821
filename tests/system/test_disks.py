"""Full and read-only disks: which calls are refused, with which messages, and what works all the same."""

import contextlib
import os
import subprocess

import grpc
import pytest

from datapath import Datapath, owner, read_json, refused
from device_plugin import config_text, node, wait_devices  # noqa: F401 (a fixture)
from support import wait_until

INTERNAL = grpc.StatusCode.INTERNAL
FULL = ("No space left on device", "make room on its disk")
READ_ONLY = ("Read-only file system", "mount it writable again")


@contextlib.contextmanager
def small_disk(path):
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def fill(path):
    with open(path / "ballast", "wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    return path / "ballast"


@contextlib.contextmanager
def read_only(path):
    subprocess.run(["mount", "-o", "remount,ro", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", path], check=True)


@pytest.fixture
def state(directory):
    with small_disk(directory / "state") as path:
        yield path


@pytest.fixture
def datapath(directory, state):
    with Datapath(directory, "--release-after=1") as program:
        program.wait_serving().offer().wait_healthy()
        yield program


def names(path):
    return sorted(os.listdir(path))


def test_full_state_directory(datapath, state):
    datapath.attach(owner(), "nic-0")
    worker, ballast = datapath.worker_pid(), fill(state)
    before = os.stat(datapath.path("nic-1")).st_ino
    with refused(INTERNAL, f"cannot write {state}/owners/nic-1.json.tmp", *FULL):
        datapath.attach(owner("c1"), "nic-1")
    assert os.stat(datapath.path("nic-1")).st_ino == before and not names(datapath.path("nic-1"))
    assert names(state / "owners") == ["nic-0.json"]
    assert sorted(datapath.processes()) == ["nic-0", "vdpa.io-nic"]
    # Running pods keep running, over a restart too, and can be ended.
    assert datapath.check(owner()) == []
    datapath.kill()
    with Datapath(datapath.directory, name="second") as second:
        second.wait_serving().offer().wait_healthy()
        wait_until(lambda: second.attachment().state == "waiting", lambda: str(second.attachment()))
        assert second.worker_pid() == worker
        assert second.detach(owner())
        assert not names(state / "owners") and not names(second.path())
        second.wait_log("detaching nic-0 all the same")
        ballast.unlink()
        second.attach(owner("c1"), "nic-1")


def test_read_only_state_directory(datapath, state):
    datapath.attach(owner(), "nic-0")
    datapath.attach(owner("c2"), "nic-2")
    with read_only(state):
        with refused(INTERNAL, f"cannot create {state}/owners/nic-1.json.tmp", *READ_ONLY):
            datapath.attach(owner("c1"), "nic-1")
        assert not names(datapath.path("nic-1"))
        assert datapath.check(owner()) == []
        # The pod's end isn't delayed; its device waits until its record can be removed.
        assert datapath.detach(owner())
        assert sorted(datapath.processes()) == ["nic-2", "vdpa.io-nic"] and not names(datapath.path())
        assert datapath.attachment().state.startswith(f"failed: detaching: cannot remove {state}/owners/nic-0.json")
        wait_until(lambda: not datapath.device().healthy, lambda: str(datapath.device()))
        with refused(INTERNAL, f"cannot remove {state}/owners/nic-0.json", *READ_ONLY):
            datapath.attach(owner("c1"), "nic-0")
    wait_until(lambda: datapath.attachment() is None, lambda: str(datapath.attachment()))
    datapath.wait_healthy()
    assert names(state / "owners") == ["nic-2.json"]
    datapath.attach(owner("c1"), "nic-0")


def test_start_with_a_read_only_state_directory(datapath, state, directory):
    datapath.attach(owner())
    running = datapath.processes()
    datapath.kill()
    with read_only(state):
        second = Datapath(directory, name="second")
        assert second.process.wait(20) == 1
        last = second.log().strip().splitlines()[-1]
        assert f"{state}/owners" in last and all(word in last for word in READ_ONLY), last
        assert datapath.processes() == running
    with Datapath(directory, name="third") as third:
        third.wait_serving().offer().wait_healthy()
        assert third.processes() == running


def test_full_run_directory(directory):
    with small_disk(directory / "run") as run, Datapath(directory) as datapath:
        datapath.wait_serving().offer().wait_healthy()
        datapath.attach(owner(), "nic-0")
        content = read_json(datapath.path(file="device.json"))
        running, ballast = datapath.processes(), fill(run)
        with refused(INTERNAL, f"cannot write {run}/devices/nic-1/", *FULL):
            datapath.attach(owner("c1"), "nic-1")
        assert not names(datapath.path("nic-1")) and datapath.processes() == running
        assert names(directory / "state/owners") == ["nic-0.json"]
        datapath.kill()
        with Datapath(directory, name="second") as second:
            second.wait_serving().offer().wait_healthy()
            assert second.processes() == running
            assert read_json(second.path(file="device.json")) == content, "the pod's files are complete"
            assert second.detach(owner())
            ballast.unlink()
            second.attach(owner("c1"), "nic-1")


@pytest.mark.parametrize("what, words", [("full", FULL), ("read-only", READ_ONLY)])
def test_device_information_that_cannot_be_written(node, what, words):
    healthy = {"nic-0": "Healthy"}
    node.config.write_text(config_text(("nic", 1)))
    with small_disk(node.devinfo) as disk, contextlib.ExitStack() as trouble:
        if what == "full":
            trouble.callback(fill(disk).unlink)
        else:
            trouble.enter_context(read_only(disk))
        with node.plugin() as plugin:
            wait_devices(node, healthy)
            plugin.wait_log(f"{disk}/vdpa.io-nic-nic-0-device.json.tmp")
            plugin.wait_log("until then network-status lacks device information")
            with refused(grpc.StatusCode.FAILED_PRECONDITION, str(disk), *words):
                node.kubelet.plugins["vdpa.io/nic"].allocate("nic-0")
            assert [name for name in names(disk) if name != "ballast"] == []
            trouble.close()
            node.kubelet.plugins["vdpa.io/nic"].allocate("nic-0")
            assert names(disk) == ["vdpa.io-nic-nic-0-device.json"]
