"""vdpactl drain: what vdpa-datapath leaves on a node from which it is removed, and when drain is refused."""

import json
import os
import subprocess

import pytest
from grpc import StatusCode

import rpc
from datapath import Datapath, owner, refused, resource
from support import BUILD, Program, wait_until

VDPACTL = BUILD / "deviceplugin/ctl/vdpactl"
DRAINED = "the node was drained of vDPA devices; none is offered until vdpa-datapath is restarted"


@pytest.fixture
def datapath(directory):
    with Datapath(directory) as program:
        yield program.wait_serving().offer().wait_healthy()


def command(datapath, *arguments):
    return [VDPACTL, "--datapath-socket", datapath.run_dir / "datapath.sock", "drain", *arguments]


def drain(datapath, *arguments):
    return subprocess.run(command(datapath, *arguments), capture_output=True, text=True, timeout=60, check=False)


def test_refused_while_pods_have_devices(datapath):
    datapath.attach(owner(pod="web"))
    datapath.attach(owner("c1", pod="db"), "nic-1")
    before = datapath.processes()
    done = drain(datapath)
    assert done.returncode == 1 and done.stdout == ""
    for words in "nic-0 by", "default/web", "nic-1 by", "default/db", "delete them":
        assert words in done.stderr
    with refused(StatusCode.FAILED_PRECONDITION, "default/web"):
        datapath.stub.Drain(rpc.datapath.DrainRequest(), timeout=20)
    assert datapath.processes() == before and datapath.device().healthy
    datapath.attach(owner("c2"), "nic-2")


def test_it_waits_for_the_last_pod(datapath):
    datapath.attach(owner(pod="web"))
    done = drain(datapath, "--wait=1")
    assert done.returncode == 1 and "after 1 s pods still have devices of this node: nic-0" in done.stderr
    with subprocess.Popen(command(datapath, "--wait"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        assert "vdpactl: waiting: pods still have devices" in waiting.stderr.readline()
        datapath.detach(owner(pod="web"))
        assert waiting.wait(30) == 0
        assert "ended vdpa-switch of vdpa.io/nic" in waiting.stdout.read()


def test_nothing_is_left_and_nothing_offered_until_the_next_start(datapath):
    datapath.set_devices(resource(), resource("vdpa.io/other", 2)).wait_healthy("other-0")
    watching = datapath.stub.Watch(rpc.datapath.WatchRequest(), timeout=60)
    watched = {d.id: d for d in next(watching).devices}
    done = drain(datapath, "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"ended": ["vdpa-switch of vdpa.io/nic", "vdpa-switch of vdpa.io/other"], "left": []}
    assert datapath.processes() == {}
    assert sorted(os.listdir(datapath.run_dir)) == ["boot", "datapath.lock", "datapath.sock", "observe"]
    assert not os.listdir(datapath.state_dir / "owners")
    assert {(d.healthy, d.reason) for d in datapath.list().devices} == {(False, DRAINED)}
    while {(d.healthy, d.reason) for d in watched.values()} != {(False, DRAINED)}:
        watched.update({d.id: d for d in next(watching).devices})   # changes from before the drain come first
    with refused(StatusCode.ABORTED, "nic-0", DRAINED):
        datapath.attach(owner())

    # The device plugin keeps reporting its devices.
    datapath.set_devices(resource(count=6))
    assert {(d.id, d.reason) for d in datapath.list().devices} == {(f"nic-{n}", DRAINED) for n in range(6)}
    assert datapath.processes() == {}
    assert sorted(os.listdir(datapath.run_dir)) == ["boot", "datapath.lock", "datapath.sock", "observe"]
    again = drain(datapath)
    assert again.returncode == 0 and again.stdout.startswith("drained: ")

    with datapath.restarted() as second:
        second.offer().wait_healthy()
        second.attach(owner())


def test_strays_end_too(datapath, directory):
    """A process of which nothing is known except its control socket."""
    control = datapath.run_dir / "workers/stray.sock"
    with Program("stray", [BUILD / "tests/unit/datapath/control-program", "--device=stray", f"--control={control}",
                           f"--socket={directory}/stray-socket"], directory) as stray:
        wait_until(control.exists, "its socket")
        assert "ended vdpa-worker of stray" in drain(datapath).stdout
        assert stray.process.wait(10) == 0
