"""vdpa-datapath updated to another version: engines are replaced one by one while their pods run; workers stay."""

import contextlib
import os
import re
import subprocess
import threading

import grpc
import pytest

import rpc
from datapath import BUILD, NEXT, WORKER_DIRS, Datapath, owner, resource, settings
from support import wait_until


def version(program):
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()


THIS = version(BUILD / "deviceplugin/datapath/vdpa-datapath")
OTHER = version(NEXT / "vdpa-datapath")


@pytest.fixture
def datapath(directory):
    with Datapath(directory) as program:
        program.wait_serving().set_devices(resource(), resource("vdpa.io/other", 2))
        program.wait_healthy().wait_healthy("other-0")
        yield program


def attach_two(datapath):
    datapath.attach(owner(), settings=settings(vlan=3))
    datapath.attach(owner("c1"), "other-0", settings=settings(spoof_check=True))
    for device in "nic-0", "other-0":
        wait_until(lambda device=device: datapath.attachment(device).state == "waiting", f"{device} ready")


def test_programs_of_another_version():
    assert OTHER == f"{THIS}-next"
    assert {version(NEXT / f"vdpa-{name}") for name in ("worker", "switch", "pmd")} == {OTHER}


def test_engines_are_replaced_one_by_one_and_workers_stay(datapath):
    attach_two(datapath)
    before, socket = datapath.processes(), datapath.socket().stat()
    datapath.kill()
    with datapath.updated() as second:
        for name in "nic", "other":
            second.wait_log(f"replaced vdpa-switch of vdpa.io/{name}: up again after ")
        steps = re.findall(r"(vdpa-switch of vdpa.io/\w+ has version|replaced vdpa-switch of vdpa.io/\w+)", second.log())
        assert steps == [f"{what.format(name)}" for name in ("nic", "other") for what in
                         ("vdpa-switch of vdpa.io/{} has version", "replaced vdpa-switch of vdpa.io/{}")]
        assert f"has version {THIS}: replacing it with version {OTHER}" in second.log()
        after = second.processes()
        assert {name for name in before if before[name] != after[name]} == {"vdpa.io-nic", "vdpa.io-other"}
        assert os.path.samestat(second.socket().stat(), socket)
        for own, device, values in (owner(), "nic-0", {"vlan": 3}), (owner("c1"), "other-0", {"spoof_check": True}):
            wait_until(lambda own=own, device=device, values=values: not second.check(own, device, settings(**values)),
                       lambda device=device: f"{device} as before")
        # A worker of the old version serves its pod to the end; the next pod gets one of the new version.
        assert second.attachment().worker_version == THIS
        second.set_devices(resource(), resource("vdpa.io/other", 2)).wait_healthy()
        assert second.detach(owner())
        assert second.attach(owner("c2")).worker_version == OTHER
        second.kill()
        with second.updated() as third:  # and processes of its own version are left alone
            third.set_devices(resource(), resource("vdpa.io/other", 2)).wait_healthy()
            third.wait_healthy("other-0")
            assert {n: p for n, p in third.processes().items() if "io-" in n} == {
                n: p for n, p in after.items() if "io-" in n}
            assert "replac" not in third.log()


def follow(stream, healthy, worse):
    """Reads the stream to its end: the devices that became healthy, and the later unhealthy states of those."""
    with contextlib.suppress(grpc.RpcError):
        for message in stream:
            for state in message.devices:
                if state.healthy:
                    healthy.add(state.id)
                elif state.id in healthy:
                    worse.append(state)


def test_devices_stay_healthy_while_their_switch_is_replaced(datapath):
    attach_two(datapath)
    datapath.kill()
    with datapath.updated() as second:
        second.set_devices(resource(), resource("vdpa.io/other", 2))
        # The stream reports every change of a device's health. Until its switch is adopted, a device is not healthy.
        healthy, worse = set(), []
        stream = second.stub.Watch(rpc.datapath.WatchRequest(), timeout=60)
        follower = threading.Thread(target=follow, args=(stream, healthy, worse))
        follower.start()
        for name in "nic", "other":
            second.wait_log(f"replaced vdpa-switch of vdpa.io/{name}")
        second.set_devices(resource(), resource("vdpa.io/other", 2), resource("vdpa.io/last", 1))  # after all of these steps
        wait_until(lambda: "last-0" in healthy, lambda: str(worse), 20)
        stream.cancel()
        follower.join()
        assert {"nic-0", "nic-3", "other-0", "other-1"} <= healthy
        assert not worse, worse


def test_installed_programs_of_the_old_version_are_no_reason_to_replace(datapath):
    attach_two(datapath)
    before = datapath.processes()
    datapath.kill()
    with datapath.updated(worker_dirs=WORKER_DIRS) as second:
        program = BUILD / "deviceplugin/datapath/switch/vdpa-switch"
        second.wait_log(f"vdpa-switch of vdpa.io/other is not replaced: {program} has version {THIS} too, "
                        f"but vdpa-datapath has {OTHER}")
        assert second.processes() == before


def test_a_new_program_that_does_not_run_stops_the_update(datapath, directory):
    """Only one resource is without packets then."""
    attach_two(datapath)
    before = datapath.processes()
    programs = directory / "programs"
    programs.mkdir()
    (programs / "vdpa-switch").write_text('#!/bin/sh\n[ "$1" = --version ] && echo 9.9.9\nexit 3\n')
    (programs / "vdpa-switch").chmod(0o755)
    datapath.kill()
    with datapath.updated(worker_dirs=f"{programs}:{NEXT}") as second:
        second.wait_log("cannot replace vdpa-switch of vdpa.io/nic: version 9.9.9 did not come up: vdpa-switch of "
                        "vdpa.io/nic is not running: exited with status 3")
        second.wait_log("the remaining engines are not replaced")
        assert second.processes()["vdpa.io-other"] == before["vdpa.io-other"]
        assert second.check(owner("c1"), "other-0", settings=settings(spoof_check=True)) == []
        (programs / "vdpa-switch").unlink()
        (programs / "vdpa-switch").symlink_to(NEXT / "vdpa-switch")
        wait_until(lambda: not second.check(owner(), settings=settings(vlan=3)), "nic-0 back, with the next program", 40)
        assert second.processes()["vdpa.io-other"] == before["vdpa.io-other"]


def test_a_switch_that_tells_no_version_is_an_older_one(directory):
    programs = directory / "programs"
    programs.mkdir()
    # It speaks only the control channel.
    (programs / "vdpa-switch").symlink_to(BUILD / "tests/unit/datapath/control-program")
    with Datapath(directory, worker_dirs=f"{programs}:{WORKER_DIRS}") as datapath:
        datapath.wait_serving().offer().wait_healthy()
        old = datapath.switch_pid()
        datapath.kill()
        with datapath.restarted() as second:
            second.offer().wait_log("vdpa-switch of vdpa.io/nic has an unknown version: replacing it")
            second.wait_log("replaced vdpa-switch of vdpa.io/nic")
            second.wait_healthy().attach(owner())
            assert second.switch_pid() != old
