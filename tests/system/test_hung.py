"""Processes that hang: they delay only their own devices, whose callers wait together and get a message with the next step."""

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import time

import grpc
import pytest

from datapath import Datapath, owner, resource
from support import suspend, wait_until

PODS = 30


@pytest.fixture
def datapath(directory):
    with Datapath(directory) as program:
        program.wait_serving()
        program.set_devices(resource(count=PODS + 4), resource("vdpa.io/other", 2))
        program.wait_healthy("other-0").wait_healthy("nic-0")
        yield program


def together(*calls):
    """The seconds of each call, and what it returned or raised."""
    def timed(call):
        began = time.monotonic()
        try:
            result = call()
        except grpc.RpcError as error:
            result = error
        return time.monotonic() - began, result
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(timed, calls))


def test_a_hung_switch_delays_its_own_pods_alone_and_those_once(datapath):
    for n in range(PODS):
        datapath.attach(owner(f"c{n}"), f"nic-{n}")
    pid = datapath.switch_pid()
    suspend(pid)
    answers = together(
        *(lambda n=n: datapath.detach(owner(f"c{n}")) for n in range(4)),
        *(lambda n=n: datapath.attach(owner(f"d{n}"), f"nic-{PODS + n}") for n in range(3)),
        lambda: datapath.attach(owner("o"), "other-0"), lambda: datapath.detach(owner("o")))
    detached, attached, others = answers[:4], answers[4:7], answers[7:]
    assert all(seconds < 1 for seconds, _ in others[:1]), "the other resource's switch is healthy"
    assert all(seconds < 6.5 for seconds, _ in detached + attached), answers
    assert all(result is True for _, result in detached), detached
    for _, error in attached:
        assert error.code() == grpc.StatusCode.ABORTED
        for words in ("vdpa-switch of vdpa.io/nic", f"process {pid}", "has not answered for", "is killed and started again",
                      "try again"):
            assert words in error.details()
    # Known to be silent: no call waits for it any more.
    again = together(lambda: datapath.detach(owner("c4")), lambda: datapath.attach(owner("d0"), f"nic-{PODS}"))
    if datapath.switch_pid() == pid:
        assert all(seconds < 2 for seconds, _ in again), again
    os.kill(pid, signal.SIGCONT)

    def attaches():   # as the refusal's message promises
        try:
            return datapath.attach(owner("e"), "nic-0")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.ABORTED, error
            return False
    wait_until(attaches, "the switch or its successor", 30)
    wait_until(lambda: {a.state for a in datapath.list().attachments} == {"waiting"},
               lambda: str({(a.device_id, a.state) for a in datapath.list().attachments}), 20)


def test_the_end_of_a_hung_switch_delays_nobody(datapath):
    """Its resource is withdrawn, and with it a device that a pod still has: the pod's DEL removes that device's directory."""
    datapath.attach(owner("o"), "other-1")
    hung = datapath.switch_pid()
    suspend(hung)
    answers = [together(call)[0] for call in (
        lambda: datapath.set_devices(resource("vdpa.io/other", 1)), lambda: datapath.detach(owner("o")),
        lambda: datapath.attach(owner("p"), "other-0"))]
    assert all(seconds < 1 for seconds, _ in answers), answers
    assert pathlib.Path(f"/proc/{hung}").exists(), "too late to see anything"
    wait_until(lambda: not (datapath.run_dir / "switches/vdpa.io-nic").exists(), datapath.log)
    wait_until(lambda: not pathlib.Path(f"/proc/{hung}").exists(), datapath.log)


def threads_of(pid):
    """Without gRPC's timers: it starts a second one when the first has something to wait for, at any attachment."""
    names = []
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):   # it has ended
            names.append((task / "comm").read_text().strip())
    return sum(name != "grpc_global_tim" for name in names)


def test_an_attachment_costs_no_thread(datapath):
    datapath.attach(owner("c0"), "nic-0")
    wait_until(lambda: threads_of(datapath.pid) <= 24, lambda: threads_of(datapath.pid))
    few = threads_of(datapath.pid)
    for n in range(1, PODS):
        datapath.attach(owner(f"c{n}"), f"nic-{n}")
    wait_until(lambda: threads_of(datapath.pid) <= few, lambda: (few, threads_of(datapath.pid)), 30)


def test_attaches_that_wait_for_old_owners_delay_no_detach(datapath):
    many = 64
    datapath.set_devices(resource(count=many + 1)).wait_healthy(f"nic-{many}")
    for n in range(many + 1):
        datapath.attach(owner(f"c{n}"), f"nic-{n}")
    rest = threads_of(datapath.pid)
    with concurrent.futures.ThreadPoolExecutor(2 * many) as pool:
        waiting = [pool.submit(datapath.attach, owner(f"d{n}"), f"nic-{n}") for n in range(many)]
        wait_until(lambda: threads_of(datapath.pid) >= many, lambda: threads_of(datapath.pid), 5)   # each waits in one of them
        (took, detached), = together(lambda: datapath.detach(owner(f"c{many}")))
        assert detached and took < 1, (detached, took)
        assert not any(call.done() for call in waiting)
        assert all(done for _, done in together(*(lambda n=n: datapath.detach(owner(f"c{n}")) for n in range(many))))
        assert {call.result().device_id for call in waiting} == {f"nic-{n}" for n in range(many)}
    wait_until(lambda: threads_of(datapath.pid) <= rest, lambda: (rest, threads_of(datapath.pid)), 30)
