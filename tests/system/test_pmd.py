"""vdpa-pmd between a real worker and a vDPA device in software, under a real DPDK application."""

import os
import signal

import processes
import pytest

from pmd import PROGRAM, Events, Pmd, dpdk_files, sysfs
from pod import Pod
from support import SANITIZED, Program, wait_until
from switch import Control
from testpmd import RINGS, application, option
from vhost_front import GET_FEATURES, FrontEnd
from worker import Worker

pytestmark = pytest.mark.packets


@RINGS
@pytest.mark.release
@pytest.mark.parametrize("queues", [1, 2])
def test_packets_flow(directory, ring, queues):
    """The application's counters equal the device's, on every queue."""
    with Worker(directory, queues=queues) as worker, Pmd(directory, worker.engine, queues=queues) as pmd:
        worker.wait_ready()
        assert pmd.hello()["queue_pairs"] == queues
        with application(directory, worker.socket, queues=queues, options=option(ring)) as app:
            app.wait_received(10000, "from the device")
            for queue in range(queues):
                wait_until(lambda: app.counter(f"rx_q{queue}_good_packets") > 1000,
                           lambda: f"packets on queue {queue}:\n{app.log()[-3000:]}", 30)
                assert pmd.packets(queue * 2) >= app.counter(f"rx_q{queue}_good_packets")
                assert pmd.packets(queue * 2 + 1) >= app.counter(f"rx_q{queue}_good_packets")
            worker.wait_state(front="running", engine="up")
            pmd.wait_state(ready=True, connected=True, reason="")
        pmd.wait_state(ready=True, connected=False, reason="")


@RINGS
def test_application_killed_and_restarted(directory, ring):
    """The next worker gets the device in its initial state, and nothing of the last worker's is kept."""
    with Worker(directory) as worker, Pmd(directory, worker.engine) as pmd:
        own = memory_files(pmd.wait_up())
        for life, end in enumerate(["kill", "stop", "kill"]):
            worker.wait_ready().wait_state(front="listening", engine="up")
            with application(directory, worker.socket, name=f"application{life}", options=option(ring)) as app:
                app.wait_received(5000, f"in life {life}")
                pmd.wait_state(connected=True)
                getattr(app, end)()
            pmd.wait_state(connected=False, reason="")
            wait_until(lambda: memory_files(pmd) == own, lambda: f"only its own memory: {memory_files(pmd)}")
        assert pmd.running()


def memory_files(program):
    """The inodes of the memory files that it has mapped."""
    return {line.split()[4] for line in open(f"/proc/{program.pid}/maps") if "memfd" in line}


@RINGS
def test_pmd_killed_under_traffic(directory, ring):
    """The application notices only a pause: the rings resume at their positions."""
    with Worker(directory) as worker:
        pmd = Pmd(directory, worker.engine)
        with pmd:
            worker.wait_ready()
            with application(directory, worker.socket, options=option(ring)) as app:
                app.wait_received(10000, "before")
                for life in range(3):
                    pmd.kill()
                    pmd.close()
                    worker.wait_state(engine="down", front="connected")
                    with Pmd(directory, worker.engine, name=f"pmd{life}") as pmd:
                        app.wait_received(10000, f"after kill {life + 1}")
                        pmd.kill()
                assert "disconnected" not in worker.log() and "ended" not in worker.log()


def test_driver_crashes(directory):
    """A crash of the driver kills only its own process."""
    with Worker(directory) as worker:
        with Pmd(directory, worker.engine, options=",crash_after=5000") as pmd:
            worker.wait_ready()
            with application(directory, worker.socket) as app:
                wait_until(lambda: not pmd.running(), "the driver to crash")
                worker.wait_state(engine="down", front="connected")
                with Pmd(directory, worker.engine, name="second"):
                    app.wait_received(5000, "after the crash")


def test_device_is_taken_away(directory):
    """The kernel waits for the process that has a removed device open: the process exits and logs the reason."""
    with Worker(directory) as worker, Pmd(directory, worker.engine, options=",unplug_after=5000") as pmd:
        worker.wait_ready()
        with application(directory, worker.socket), Events(pmd.wait_up().path) as events:
            assert pmd.process.wait(20) == 1
            events.wait(event="state", ready=False, reason="0000:65:00.2 is being removed from this node")
            assert pmd.log().endswith("vdpa-pmd: 0000:65:00.2 is being removed from this node\n")
            worker.wait_state(engine="down", front="connected")


def test_device_that_does_not_start_is_reported_and_tried_again(directory):
    with Worker(directory) as worker, Pmd(directory, worker.engine, options=",fail_conf=3") as pmd:
        pmd.wait_up()
        with Events(pmd.path) as events:
            worker.wait_ready()
            with application(directory, worker.socket) as app:
                reason = events.wait(event="state", ready=False, connected=False)["reason"]
                assert "cannot start 0000:65:00.2" in reason and "no room for this memory" in reason
                assert events.wait(ready=True, connected=False)["reason"] == reason
                events.wait(ready=True, connected=True, reason="")
                app.wait_received(5000, "at the fourth attempt")
                assert pmd.log().count("the worker's connection is closed") == 3
                assert "disconnected" not in worker.log()


def test_device_that_never_starts_does_not_keep_anybody_busy(directory):
    with Worker(directory) as worker, Pmd(directory, worker.engine, options=",fail_conf=1000000") as pmd:
        worker.wait_ready()
        with FrontEnd(worker.socket).running():
            wait_until(lambda: pmd.log().count("the worker's connection is closed") == 4,
                       lambda: f"four attempts:\n{pmd.log()}")
            assert "the next is accepted in 1600 ms" in pmd.log()
            assert "cannot start" in pmd.hello()["reason"]
            wait_until(lambda: worker.hello()["engine"] == "down", "the worker's message")
        worker.wait_state(front="listening", engine="up")


def test_pod_that_truncates_its_memory(directory):
    """A read of that memory in this process returns zeros instead of killing it, and the connection ends."""
    with Pmd(directory, directory / "vhost.sock") as pmd:
        pmd.wait_up()
        with FrontEnd(pmd.socket).running() as front:
            pmd.wait_state(connected=True)
            os.ftruncate(front.memory, 0)
            os.eventfd_write(front.kicks[1], 1)
            assert front.closed()
        pmd.wait_state(ready=True, connected=False, reason="the pod truncated the memory it shares")
        with FrontEnd(pmd.socket).running():
            pmd.wait_state(connected=True, reason="")


def test_second_connection_is_refused(directory):
    with Pmd(directory, directory / "vhost.sock") as pmd:
        pmd.wait_up()
        with Pod(pmd.socket) as pod:
            pmd.wait_state(connected=True)
            for _ in range(3):
                with FrontEnd(pmd.socket) as second:
                    assert second.closed()
            pod.send_to(pod.mac, b"still served").wait_payload(b"still served")
            assert pmd.log().count("a second connection") == 3
        pmd.wait_state(connected=False)
        with FrontEnd(pmd.socket) as front:
            assert front.ask(GET_FEATURES)


def test_new_memory_under_traffic(directory):
    """The device releases the old memory and resumes with the new one."""
    with Worker(directory) as worker, Pmd(directory, worker.engine) as pmd:
        worker.wait_ready()
        own = memory_files(pmd)
        with FrontEnd(worker.socket).running() as front:
            pmd.wait_state(connected=True)
            first = memory_files(pmd) - own
            front.share(0x40000)
            worker.wait_state(front="running", engine="up")
            pmd.wait_state(connected=True)
            second = memory_files(pmd) - own
            assert len(first) == len(second) == 1 and first != second
            assert front.stop_ring(0) == 0
        pmd.wait_state(connected=False)


@pytest.mark.parametrize("how", ["stop", "signal"])
def test_end_leaves_nothing(directory, how):
    before = dpdk_files()
    with Worker(directory) as worker, Pmd(directory, worker.engine) as pmd:
        worker.wait_ready()
        with FrontEnd(worker.socket).running():
            pmd.wait_state(connected=True)
            assert dpdk_files() == before
            if how == "stop":
                assert pmd.call("stop") == {}
            else:
                pmd.process.send_signal(signal.SIGTERM)
            assert pmd.process.wait(10) == 0
            worker.wait_state(engine="down", front="connected")
        left = {file.name for file in directory.iterdir()}
        locks = {"pmd.lock", "control.lock"}  # vdpa-datapath removes them
        assert left == {"pmd.log", "worker.log", "vhost.sock", "control.sock", *locks} and dpdk_files() == before
        assert "error" not in pmd.log()


@pytest.mark.release
def test_it_is_small_and_sleeps(directory):
    with Worker(directory) as worker, Pmd(directory, worker.engine) as pmd:
        worker.wait_ready()
        with FrontEnd(worker.socket).running():
            pmd.wait_state(connected=True)
            if not SANITIZED:
                assert pmd.memory_kib("RssAnon") < 8 * 1024
            # Not at a single moment, at which a thread that wakes every millisecond is usually asleep too.
            seen = []

            def none_woke():
                seen.append(processes.switches(pmd.pid))
                return len(seen) > 1 and seen[-1] == seen[-2]
            wait_until(none_woke, lambda: f"threads that stay asleep: {seen[-2:]}", interval=0.5)


def refusal(directory, *arguments):
    """The last line of a start that fails, which a datapath reads too."""
    with Program("refused", [PROGRAM, "--device", "nic-7", "--socket", directory / "v.sock", "--control",
                             directory / "c.sock", *arguments], directory) as program:
        control = Control(directory / "c.sock")

        def greeted():
            try:
                return control.call("hello")
            except OSError:  # the file exists a moment before the process listens
                control.close()
                return None
        wait_until(lambda: not program.running() or (directory / "c.sock").exists(), "it to start")
        if program.running():
            hello = wait_until(greeted, program.log)
            assert control.call("stop") == {}
            control.close()
            assert not hello["ready"] and program.log().endswith(f"vdpa-pmd: {hello['reason']}\n")
        assert program.process.wait(10) == 1, program.log()
    assert not any(directory.glob("*.sock*")) and not (directory / "dpdk").exists()
    return program.log().strip().splitlines()[-1]


PCI = ("--pci", "0000:65:00.2", "--driver", "ifc")


def test_refusal_that_nobody_asks_about(directory):
    """It exits by itself."""
    with Program("refused", [PROGRAM, "--device", "nic-7", "--socket", directory / "v.sock", "--control",
                             directory / "c.sock", *PCI, "--sysfs", sysfs(directory, address="0000:65:00.3")],
                 directory) as program:
        assert program.process.wait(10) == 1 and "no PCI function" in program.log()


def test_no_such_function(directory):
    message = refusal(directory, *PCI, "--sysfs", sysfs(directory, address="0000:65:00.3"))
    assert "no PCI function 0000:65:00.2" in message and "sriov_numvfs" in message


@pytest.mark.parametrize("driver, bound, needed", [
    ("ifc", None, "no kernel driver, but DPDK's ifc driver needs vfio-pci"),
    ("sfc", "sfc", "sfc, but DPDK's sfc driver needs vfio-pci"),
    ("mlx5", "vfio-pci", "vfio-pci, but DPDK's mlx5 driver needs mlx5_core")])
def test_function_with_another_kernel_driver(directory, driver, bound, needed):
    message = refusal(directory, "--pci", "0000:65:00.2", "--driver", driver, "--sysfs", sysfs(directory, driver=bound))
    assert f"is bound to {needed}" in message and "drivers_probe" in message


def test_function_without_iommu(directory):
    message = refusal(directory, *PCI, "--sysfs", sysfs(directory, driver="vfio-pci", group=False))
    assert "no IOMMU group" in message


@pytest.mark.parametrize("driver, bound", [("ifc", "vfio-pci"), ("sfc", "vfio-pci"), ("mlx5", "mlx5_core")])
def test_function_that_the_driver_does_not_take(directory, driver, bound):
    """The real drivers are loaded and called; the function is in no real /sys."""
    message = refusal(directory, "--pci", "0000:65:00.2", "--driver", driver, "--sysfs", sysfs(directory, driver=bound))
    assert f"DPDK's {driver} driver does not accept 0000:65:00.2" in message, message


@pytest.mark.parametrize("arguments, expected", [
    (("--pci", "0000:65:00.2", "--driver", "nfp"), "expected one of ifc, mlx5, sfc"),
    (("--pci", "0000:65:00.2"), "expected --pci and --driver"),
    ((), "expected --pci and --driver"),
    (("--vdev", "vdpa_test0", "--load", "/nowhere/driver.so"), "/nowhere/driver.so"),
])
def test_wrong_flags(directory, arguments, expected):
    assert expected in refusal(directory, *arguments)
