"""Devices whose owner record can't be read: no other pod gets them, their pods keep them, and a person frees them."""

import contextlib
import json
import os
import signal

import grpc
import pytest

from datapath import Datapath, owner, read_json, refused, settings
from device_plugin import DevicePlugin, software, write_config
from kubelet import Kubelet
from support import wait_until
from vdpactl import as_json, run, table

ABORTED = grpc.StatusCode.ABORTED


@pytest.fixture
def datapath(directory):
    with Datapath(directory) as program:
        program.wait_serving().offer().wait_healthy()
        yield program


def spoil(datapath, content, device="nic-0"):
    """Writes the record that a restarted datapath finds for the device."""
    datapath.kill()
    datapath.record(device).write_text(content)


@pytest.fixture
def again():
    """Another instance over the same directories, which ends with the test; the first one owns its processes."""
    with contextlib.ExitStack() as ends:
        def start(datapath):
            datapath.kill()
            started = datapath.restarted()
            ends.callback(started.kill)
            return started
        yield start


def bad(datapath, device="nic-0"):
    return datapath.record(device).with_name(f"{device}.json.bad")


@pytest.mark.parametrize("content, why", [
    ("", "parse error"), ("{", "parse error"), ("[]", ""), ('{"version": 99}', "it has version 99; this program reads"),
    ('{"version": 1}', "bootId"), ("\0" * 100, "parse error")])
def test_withheld_until_a_person_ends_it(datapath, directory, again, content, why):
    datapath.attach(owner(), settings=settings(vlan=3))
    datapath.attach(owner("c1"), "nic-1")
    running, socket = datapath.processes(), datapath.socket().stat()
    files = [datapath.path(file=name).read_text() for name in ("device.json", "eal-args")]
    spoil(datapath, content)
    for _ in range(2):  # the same after every start
        datapath = again(datapath)
        datapath.offer().wait_healthy("nic-1")
        device = datapath.device()
        assert not device.healthy
        assert all(text in device.reason for text in (
            str(bad(datapath)), why, "vdpactl detach --force nic-0")), device.reason
        assert not datapath.record().exists() and bad(datapath).read_text() == content
        with refused(ABORTED, device.reason):
            datapath.attach(owner("c2"))
        assert not datapath.detach(owner()), "it isn't known to be this owner's"
        wait_until(lambda: datapath.attachment("nic-1").state == "waiting", lambda: str(datapath.attachment("nic-1")))
        # Its pod notices nothing.
        assert datapath.processes() == running
        assert os.path.samestat(datapath.socket().stat(), socket)
        assert files == [datapath.path(file=name).read_text() for name in ("device.json", "eal-args")]

    row = table(directory, "attachments")["nic-0"]
    assert row["STATE"].startswith("withheld: the owner record") and row["POD"] == "-"
    assert as_json(directory, "attachments")["nic-0"]["attached"] is False
    done = run(directory, "detach", "nic-0", "--yes")
    assert done.returncode == 1 and str(bad(datapath)) in done.stderr
    done = run(directory, "detach", "--force", "nic-0", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "detached nic-0 from an unknown owner\n"
    assert sorted(datapath.processes()) == ["nic-1", "vdpa.io-nic"]
    assert not bad(datapath).exists() and not list(datapath.path().iterdir())
    datapath.wait_healthy()
    datapath.attach(owner("c2"))
    assert datapath.check(owner("c2")) == []


def test_a_port_of_a_withheld_device_comes_back_with_its_switch(datapath, again):
    datapath.attach(owner(), settings=settings(vlan=3))
    spoil(datapath, "{")
    second = again(datapath)
    second.offer().wait_healthy("nic-1")
    first, worker = second.switch_pid(), second.worker_pid()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: second.processes().get("vdpa.io-nic", first) != first, "another switch")
    second.wait_healthy("nic-1")
    port = second.run_dir / "switches/vdpa.io-nic/ports/nic-0.sock"
    wait_until(port.is_socket, f"{port} is there")
    assert second.worker_pid() == worker


def test_a_record_that_another_version_can_read_is_taken_up_again(datapath, again):
    datapath.attach(owner(pod="pod"))
    running, record = datapath.processes(), read_json(datapath.record())
    spoil(datapath, json.dumps(record | {"version": 3}))
    older = again(datapath)
    assert older.offer().attachment().state.startswith("withheld: ")
    assert older.processes() == running
    # The program that knows version 3 finds it there; here the record gets a version that this program knows.
    bad(datapath).write_text(json.dumps(record))
    newer = again(older)
    newer.offer().wait_healthy()
    assert newer.attachment().owner.pod_name == "pod" and newer.processes() == running
    assert newer.detach(owner())
    assert not bad(newer).exists() and not newer.record().exists()


def test_the_kubelet_is_told(datapath, directory, again):
    """Two of three devices withheld: Unhealthy in ListAndWatch, over restarts of the datapath and of the plugin."""
    config = write_config(directory, *software(nic=3)["resources"])
    kubelet = Kubelet(directory).start()

    def wait_listed(*unhealthy):
        expected = {f"nic-{n}": "Unhealthy" if f"nic-{n}" in unhealthy else "Healthy" for n in range(3)}
        kubelet.wait_plugin()
        wait_until(lambda: kubelet.plugins["vdpa.io/nic"].devices == expected,
                   lambda: str(kubelet.plugins["vdpa.io/nic"].devices))

    try:
        with DevicePlugin(directory, config):
            wait_listed()
            datapath.attach(owner("c0"), "nic-0")
            datapath.attach(owner("c1"), "nic-1")
            running = datapath.processes()
            spoil(datapath, "{", "nic-0")
            spoil(datapath, "{", "nic-1")
            datapath = again(datapath)
            wait_listed("nic-0", "nic-1")
            assert datapath.processes() == running
            assert run(directory, "detach", "--force", "--yes", "nic-0").returncode == 0
            wait_listed("nic-1")
            again(datapath)
            wait_listed("nic-1")
        kubelet.plugins.clear()
        with DevicePlugin(directory, config, name="plugin2"):
            wait_listed("nic-1")
            assert run(directory, "detach", "--force", "--yes", "nic-1").returncode == 0
            wait_listed()
    finally:
        kubelet.stop()
