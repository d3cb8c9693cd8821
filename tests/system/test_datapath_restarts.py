"""vdpa-datapath, its workers and its switches killed and restarted: pods' sockets stay, and nothing is lost."""

import fcntl
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import grpc
import pytest

import rpc
from datapath import BUILD, Datapath, broken_switches, network_namespace, owner, read_json, refused, resource, settings
from support import suspend, wait_until


@pytest.fixture
def datapath(directory):
    with Datapath(directory) as program:
        program.wait_serving().offer().wait_healthy()
        yield program


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_restart_takes_over_what_runs(datapath, end):
    datapath.attach(owner(pod="pod-1"), settings=settings(vlan=9))
    running, socket = datapath.processes(), datapath.socket().stat()
    os.kill(datapath.pid, end)
    datapath.process.wait(10)
    assert datapath.processes() == running
    with datapath.restarted() as second:
        assert second.attachment().owner.pod_name == "pod-1", "before the device plugin reported its devices"
        second.offer().wait_healthy()
        wait_until(lambda: second.attachment().state == "waiting", lambda: second.attachment().state)
        assert second.processes() == running
        assert os.path.samestat(second.socket().stat(), socket)
        assert second.check(owner(), settings=settings(vlan=9)) == []
        with refused(grpc.StatusCode.ALREADY_EXISTS, "nic-0"):
            second.attach(owner(), "nic-1")
        assert second.detach(owner())
        assert list(second.processes()) == ["vdpa.io-nic"]


def test_restart_under_sixteen_attachments(datapath):
    datapath.offer(16)
    for n in range(16):
        datapath.attach(owner(f"c{n}"), f"nic-{n}")
    running = datapath.processes()
    for _ in range(3):
        datapath.kill()
        datapath = datapath.restarted()
        datapath.offer(16).wait_healthy()
        wait_until(lambda: {a.state for a in datapath.list().attachments} == {"waiting"},
                   lambda: str(datapath.list().attachments))
        assert datapath.processes() == running
    for n in range(16):
        assert datapath.detach(owner(f"c{n}"))
    datapath.stop()


def test_killed_worker_comes_back_in_the_same_directory(datapath):
    datapath.attach(owner())
    first, directory = datapath.worker_pid(), datapath.path().stat()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: datapath.processes().get("nic-0", first) != first, "another worker")
    wait_until(lambda: datapath.attachment().state == "waiting", lambda: datapath.attachment().state)
    assert os.path.samestat(datapath.path().stat(), directory)
    assert datapath.socket().exists()
    datapath.wait_log("vdpa-worker of nic-0 is not running: killed by signal 9")
    assert datapath.check(owner()) == []


def test_worker_that_does_not_answer_is_still_stopped(datapath):
    datapath.attach(owner())
    suspend(datapath.worker_pid())
    assert datapath.detach(owner())
    assert "nic-0" not in datapath.processes()


def test_hung_worker_is_replaced_by_the_next_instance(datapath):
    datapath.attach(owner())
    hung = datapath.worker_pid()
    datapath.kill()
    suspend(hung)
    with datapath.restarted() as second:
        wait_until(lambda: second.processes().get("nic-0", hung) != hung, "another worker", 20)
        wait_until(lambda: second.attachment().state == "waiting", lambda: second.attachment().state)


def test_killed_switch_gets_its_ports_back(datapath):
    datapath.attach(owner(), settings=settings(vlan=3))
    datapath.attach(owner("c1"), "nic-1", settings=settings(spoof_check=True, link_state="disable"))
    first, worker, socket = datapath.switch_pid(), datapath.worker_pid(), datapath.socket().stat()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: datapath.processes().get("vdpa.io-nic", first) != first, "another switch")
    datapath.wait_healthy()
    for who, device, values in (owner(), "nic-0", {"vlan": 3}), (owner("c1"), "nic-1", {"spoof_check": True,
                                                                                       "link_state": "disable"}):
        wait_until(lambda who=who, device=device, values=values: not datapath.check(who, device, settings(**values)),
                   lambda who=who, device=device, values=values: str(datapath.check(who, device, settings(**values))), 20)
    assert datapath.worker_pid() == worker
    assert os.path.samestat(datapath.socket().stat(), socket)


def test_switch_that_hangs_is_replaced(datapath):
    datapath.attach(owner())
    hung = datapath.switch_pid()
    suspend(hung)
    wait_until(lambda: datapath.processes().get("vdpa.io-nic", hung) != hung, "another switch", 60)
    datapath.wait_healthy()
    wait_until(lambda: datapath.check(owner()) == [], lambda: str(datapath.check(owner())), 20)
    assert "vdpa-switch of vdpa.io/nic hangs" in datapath.log()


def test_switch_and_datapath_killed_together(datapath):
    datapath.attach(owner())
    datapath.kill()
    os.kill(datapath.switch_pid(), signal.SIGKILL)
    wait_until(lambda: "vdpa.io-nic" not in datapath.processes(), "the switch gone")
    with datapath.restarted() as second:
        # The owner record is enough: the device plugin may be down.
        wait_until(lambda: "vdpa.io-nic" in second.processes(), "another switch")
        second.offer().wait_healthy()
        wait_until(lambda: second.check(owner()) == [], lambda: str(second.check(owner())), 20)


def link_programs(folder, *programs):
    for program in programs:
        (folder / pathlib.Path(program).name).symlink_to(BUILD / "deviceplugin/datapath" / program)


def test_health_follows_the_switch(directory):
    programs = directory / "programs"
    programs.mkdir()
    link_programs(programs, "worker/vdpa-worker", "switch/vdpa-switch", "switch/vdpa-switch-dpdk", "pmd/vdpa-pmd")
    with Datapath(directory, worker_dirs=programs) as datapath:
        datapath.wait_serving().offer().wait_healthy()
        (programs / "vdpa-switch").rename(programs / "away")  # no other one starts
        os.kill(datapath.switch_pid(), signal.SIGKILL)
        wait_until(lambda: not datapath.device().healthy, "noticed")
        datapath.wait_log("vdpa-switch of vdpa.io/nic is not running: killed by signal 9 (Killed), next start in 50 ms")
        assert "vdpa-switch" in datapath.device().reason
        (programs / "away").rename(programs / "vdpa-switch")
        datapath.wait_healthy()


def test_switch_that_cannot_run_makes_devices_unhealthy(directory):
    with Datapath(directory, worker_dirs=broken_switches(directory)) as datapath:
        datapath.wait_serving().offer()
        reason = re.compile("exited with status 3;.*, next start in [0-9]+ ms")
        wait_until(lambda: reason.search(datapath.device().reason), lambda: str(datapath.device()))
        assert not datapath.device().healthy
        with refused(grpc.StatusCode.ABORTED, "nic-0", "vdpa-switch of vdpa.io/nic is not running"):
            datapath.attach(owner())
        pauses = [line.rsplit("next start in ", 1)[1] for line in datapath.log().splitlines() if "next start in" in line]
        assert pauses[:4] == ["50 ms", "100 ms", "200 ms", "400 ms"]
        broken = directory / "programs/vdpa-switch"
        broken.unlink()
        broken.symlink_to(BUILD / "deviceplugin/datapath/switch/vdpa-switch")
        datapath.wait_healthy()
        datapath.attach(owner())


def test_record_of_another_boot_is_undone(datapath):
    datapath.attach(owner())
    datapath.kill()
    record = read_json(datapath.record())
    record["bootId"] = "00000000-0000-0000-0000-000000000000"
    datapath.record().write_text(json.dumps(record))
    with datapath.restarted() as second:
        assert "nic-0" not in second.processes()
        assert not second.record().exists() and not second.list().attachments
        second.offer().wait_healthy()
        assert list(second.path().iterdir()) == []
        second.attach(owner())


@pytest.mark.parametrize("phase", ["attaching", "detaching"])
def test_unfinished_record_is_undone(datapath, phase):
    datapath.attach(owner())
    datapath.kill()
    record = read_json(datapath.record())
    record["phase"] = phase
    datapath.record().write_text(json.dumps(record))
    with datapath.restarted() as second:
        second.offer().wait_healthy()
        wait_until(lambda: list(second.processes()) == ["vdpa.io-nic"], second.processes)
        assert not second.record().exists() and list(second.path().iterdir()) == []
        assert second.attach(owner("c1")).state == "waiting"


def test_record_under_another_name_is_set_aside(datapath):
    datapath.attach(owner())
    datapath.kill()
    datapath.record().rename(datapath.record("nic-1"))
    with datapath.restarted() as second:
        second.wait_log("nic-1.json.bad")
        assert [a.state.split(":")[0] for a in second.list().attachments] == ["withheld"]


def test_killed_in_the_middle_of_attaching_many(datapath):
    """At any moment an owner has its device either completely or not at all, and Detach leaves nothing behind."""
    script = "import sys; sys.path.insert(0, sys.argv[1]); import rpc, datapath as d\n" \
             "stub = rpc.datapath.DatapathStub(rpc.channel(sys.argv[2]))\n" \
             "for i in range(1000):\n" \
             "    stub.Attach(rpc.datapath.AttachRequest(owner=d.owner('c%d' % i), device_id='nic-%d' % (i % 4)))\n" \
             "    stub.Detach(rpc.datapath.DetachRequest(container_id='c%d' % i, interface='net1'))\n"
    for round_number in range(6):
        client = subprocess.Popen([sys.executable, "-c", script, os.path.dirname(rpc.__file__),
                                   str(datapath.run_dir / "datapath.sock")], stderr=subprocess.DEVNULL)
        done = datapath.log().count("detached nic-")
        wait_until(lambda: datapath.log().count("detached nic-") > done + 1, "calls in progress", 20)
        time.sleep(0.007 * round_number)  # another moment in every round
        datapath.kill()
        client.wait(20)
        datapath = datapath.restarted()
        datapath.offer().wait_healthy()
        left = datapath.list().attachments
        for attachment in left:
            device = attachment.device_id
            wait_until(lambda: datapath.attachment(device).state == "waiting", lambda: datapath.attachment(device).state)
            assert datapath.check(attachment.owner, device) == []
            assert datapath.detach(attachment.owner)
        assert list(datapath.processes()) == ["vdpa.io-nic"]
        assert not list((datapath.state_dir / "owners").iterdir())
        assert all(not list(datapath.path(f"nic-{n}").iterdir()) for n in range(4))
    datapath.stop()


@pytest.mark.parametrize("program, arguments", [
    ("worker", ["--socket=vhost.sock", "--engine=engine.sock", "--device=nic-0"]),
    ("switch", ["--ports-dir=ports", "--name=vdpa.io-nic"]),
    ("pmd", ["--socket=vhost.sock", "--pci=0000:65:00.2", "--driver=ifc", "--device=nic-0"])])
def test_no_second_process_of_a_control_socket(directory, program, arguments):
    """Even before the first one listens."""
    with open(directory / "control.lock", "w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        second = subprocess.run([BUILD / f"deviceplugin/datapath/{program}/vdpa-{program}", *arguments,
                                 "--control=control.sock"], cwd=directory, capture_output=True, text=True, timeout=30,
                                check=False)
    assert second.returncode == 1
    assert f"process {os.getpid()} already has the control socket control.sock" in second.stderr
    assert os.listdir(directory) == ["control.lock"]


def test_old_socket_files_are_replaced(datapath):
    datapath.kill()
    assert (datapath.run_dir / "datapath.sock").exists()
    with datapath.restarted() as second:
        second.offer().wait_healthy()


def test_gone_resource_and_stray_switch(datapath):
    datapath.set_devices(resource(), resource("vdpa.io/other", 2))
    datapath.wait_healthy("other-0")
    datapath.kill()
    assert len(datapath.processes()) == 2
    with datapath.restarted() as second:
        second.offer().wait_healthy()
        wait_until(lambda: list(second.processes()) == ["vdpa.io-nic"], second.processes)


def test_stop_ends_waiting_calls_and_leaves_processes(datapath):
    with network_namespace() as netns:
        datapath.attach(owner(netns=netns))
        running = datapath.processes()
        attaching = datapath.stub.Attach.future(rpc.datapath.AttachRequest(
            owner=owner("c1"), device_id="nic-0"))
        begin = time.monotonic()
        datapath.stop()
        assert time.monotonic() - begin < 4
        assert attaching.exception(10).code() in (grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE,
                                                  grpc.StatusCode.CANCELLED)
        assert datapath.processes() == running
        datapath.stop()


@pytest.mark.parametrize("program", ["nic-0", "vdpa.io-nic"], ids=["worker", "switch"])
def test_a_check_waits_for_what_is_being_taken_over(datapath, program):
    """It runs and serves its pod; that it has not answered yet makes no difference."""
    datapath.attach(owner())
    datapath.kill()
    pid = datapath.processes()[program]
    suspend(pid)
    try:
        with datapath.restarted() as second:
            second.offer()
            check = second.stub.Check.future(rpc.datapath.CheckRequest(owner=owner(), device_id="nic-0"), timeout=20)
            assert second.attachment().device_id == "nic-0", "it keeps answering others"
            assert not check.done(), check.result()
            os.kill(pid, signal.SIGCONT)
            assert list(check.result().differences) == []
            assert second.processes()[program] == pid
    finally:
        os.kill(pid, signal.SIGCONT)
