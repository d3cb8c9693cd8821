"""vdpa-worker as a process, between a real DPDK application and a real rte_vhost engine."""

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import struct
import time

import pytest

from support import SANITIZED, suspend, wait_until
from testpmd import RINGS, application, engine, option
from vhost_front import (CHECKSUM, CONFIG, GET_CONFIG, GET_FEATURES, HOST_TSO4, LINK_STATUS, MAC_ADDRESS, REPLY_ACK,
                         RING_PACKED, SET_FEATURES, SET_MEM_TABLE, SET_PROTOCOL_FEATURES, SET_VRING_KICK, VERSION_1, FrontEnd)
from worker import Worker

pytestmark = pytest.mark.packets


@RINGS
@pytest.mark.release
@pytest.mark.parametrize("queues", [1, 2])
def test_packets_flow(directory, ring, queues):
    with Worker(directory, queues=queues) as worker, engine(directory, worker.engine, queues=queues):
        worker.wait_ready()
        with application(directory, worker.socket, queues=queues, options=option(ring)) as app:
            app.wait_received(10000, "through worker and engine")
            for queue in range(queues):
                wait_until(lambda: app.counter(f"rx_q{queue}_good_packets") > 1000,
                           lambda: f"packets on queue {queue}:\n{app.log()[-3000:]}", 30)
            worker.wait_state(front="running", engine="up")


@RINGS
def test_engine_killed_under_traffic(directory, ring):
    with Worker(directory) as worker:
        first = engine(directory, worker.engine)
        with first:
            worker.wait_ready()
            with application(directory, worker.socket, options=option(ring)) as app:
                app.wait_received(10000, "before")
                for life in range(4):
                    first.kill()
                    worker.wait_state(engine="down", front="connected")
                    with engine(directory, worker.engine, name=f"engine{life}") as first:
                        app.wait_received(10000, f"after kill {life + 1}")
                        first.kill()
                assert "disconnected" not in worker.log() and "ended" not in worker.log()


@RINGS
def test_application_restarted_and_killed(directory, ring):
    with Worker(directory) as worker, engine(directory, worker.engine) as switch:
        for life, end in enumerate(["stop", "kill", "stop"]):
            worker.wait_ready().wait_state(front="listening", engine="up")
            assert worker.pod_descriptors() == 0
            with application(directory, worker.socket, name=f"application{life}", options=option(ring)) as app:
                app.wait_received(5000, f"in life {life}")
                assert worker.pod_descriptors() >= 5  # memory, and two eventfds a ring
                getattr(app, end)()
        worker.wait_state(front="listening", engine="up")
        assert worker.pod_descriptors() == 0
        assert switch.running()


def test_engine_missing_at_the_start_and_gone_for_long(directory):
    """The pod's socket appears once the engine is there; a front-end outlives an engine that comes back late."""
    with Worker(directory) as worker:
        worker.wait_log("the engine at")
        worker.wait_state(ready=False, engine="down")
        assert not worker.socket.exists()
        with engine(directory, worker.engine) as switch:
            worker.wait_ready()
            with FrontEnd(worker.socket).running() as front:
                worker.wait_state(front="running", engine="up")
                switch.kill()
                worker.wait_state(front="connected", engine="down")
                assert front.stop_ring(0) == 0  # answered from the ring, without an engine
                with engine(directory, worker.engine, name="second"):
                    worker.wait_state(engine="up", front="running")
                    assert front.stop_ring(1) == 0


def test_engine_that_hangs_is_left(directory):
    with Worker(directory) as worker, engine(directory, worker.engine) as switch:
        worker.wait_ready()
        with FrontEnd(worker.socket) as front:
            front.negotiate()
            suspend(switch.pid)
            try:
                front.send(SET_PROTOCOL_FEATURES, struct.pack("<Q", REPLY_ACK))
                front.share()
                front.start_ring(0)  # acknowledged only once the engine has been given up
                worker.wait_log("has not answered")
                worker.wait_state(engine="down", front="connected")
            finally:
                switch.process.send_signal(signal.SIGCONT)
            worker.wait_state(engine="up", front="running")


@pytest.mark.release
def test_second_memory_table_under_traffic(directory):
    """The engine gets the new memory and resumes at its positions."""
    with Worker(directory) as worker, engine(directory, worker.engine):
        worker.wait_ready()
        with FrontEnd(worker.socket).running() as front:
            worker.wait_state(front="running")
            front.share(0x40000)
            worker.wait_state(front="running", engine="up")
            assert front.stop_ring(0) == 0


def test_second_connection_is_refused(directory):
    with Worker(directory) as worker, engine(directory, worker.engine):
        worker.wait_ready()
        with application(directory, worker.socket) as app:
            app.wait_received(1000, "before")
            for _ in range(50):
                with FrontEnd(worker.socket) as second:
                    assert second.closed()
            worker.wait_log("refused a second connection")
            assert worker.log().count("refused a second connection") < 10
            app.wait_received(1000, "after")


def test_an_application_that_comes_back_at_once_is_served(directory):
    """Even if the worker learns of the end of one and the start of the other at the same time."""
    with Worker(directory) as worker, engine(directory, worker.engine):
        worker.wait_ready()
        os.kill(worker.pid, signal.SIGSTOP)
        for _ in range(2):
            with FrontEnd(worker.socket) as gone:
                gone.socket.sendall(b"\xff" * 100)
        with FrontEnd(worker.socket) as front:
            os.kill(worker.pid, signal.SIGCONT)
            front.running()
            worker.wait_state(front="running")
        assert worker.log().count("ended the front-end's session") == 2


@pytest.mark.parametrize("data, name", [
    (struct.pack("<III", SET_MEM_TABLE, 1, 72), None),  # a payload that never comes
    (b"\x01", None),
    (os.urandom(12) + b"\xff" * 100, "announces|version"),
    (struct.pack("<III", 99, 1, 0), "request 99: not a request this back-end offers"),
    (struct.pack("<III", SET_MEM_TABLE, 1, 0xffffffff), "SET_MEM_TABLE: announces a payload of 4294967295"),
    (struct.pack("<IIIQ", SET_FEATURES, 1, 8, 1 << 26), "SET_FEATURES: features 0x4000000 are not offered"),
    (struct.pack("<IIIQ", SET_VRING_KICK, 1, 8, 0), "SET_VRING_KICK: came with 0 descriptors"),
])
def test_malformed_input(directory, data, name):
    """Half a message does not affect the worker; garbage ends the session with a message."""
    with Worker(directory) as worker, engine(directory, worker.engine):
        worker.wait_ready()
        with FrontEnd(worker.socket) as front:
            front.socket.sendall(data)
            if name:
                assert front.closed()
                wait_until(lambda: re.search(name, worker.log()), lambda: f"{name} in:\n{worker.log()}")
            else:
                worker.wait_state(front="connected", engine="up")
        worker.wait_state(front="listening", engine="up")
        with FrontEnd(worker.socket) as front:
            assert front.ask(GET_FEATURES)


def test_malformed_input_does_not_fill_the_log(directory):
    with Worker(directory) as worker, engine(directory, worker.engine):
        worker.wait_ready()
        for _ in range(200):
            with FrontEnd(worker.socket) as front:
                front.send(99)
                assert front.closed()
        warnings = [line for line in worker.log().splitlines() if "warning" in line and "request 99" in line]
        assert 1 <= len(warnings) < 30, warnings


@contextlib.contextmanager
def lingering_socket():
    """A connection whose last close waits for a peer that reads nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as linger:
        with server.accept()[0]:
            linger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
            linger.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    linger.send(bytes(65536))
            yield linger


@pytest.mark.parametrize("how", ["refused descriptor", "within a queue", "unread", "second connection"])
def test_descriptors_whose_close_waits(directory, how):
    with Worker(directory) as worker, engine(directory, worker.engine):
        worker.wait_ready()
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(FrontEnd(worker.socket)) if how == "second connection" else None
            if first:
                worker.wait_state(front="connected")
            linger = stack.enter_context(lingering_socket())
            sent = linger
            if how == "within a queue":
                sent, other = socket.socketpair()
                socket.send_fds(other, [b"x"], [linger.fileno()])
                linger.close()
                other.close()
            suspend(worker.pid)  # until its descriptors are the only ones
            front = stack.enter_context(FrontEnd(worker.socket))
            if how == "unread":
                front.send(99)
            front.send(SET_VRING_KICK, struct.pack("<Q", 0), [sent.fileno()])
            sent.close()
            begin = time.monotonic()
            os.kill(worker.pid, signal.SIGCONT)
            assert front.closed()
            worker.wait_state(front="connected" if first else "listening")
            assert time.monotonic() - begin < 5, "not its 600 s"
            assert worker.stop() == 0


@pytest.mark.release
def test_a_front_end_that_reads_no_answers(directory):
    with Worker(directory) as worker, engine(directory, worker.engine):
        worker.wait_ready()
        with FrontEnd(worker.socket) as front:
            front.socket.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    front.send(GET_FEATURES)
            assert worker.hello()["front"] == "connected"
            if not SANITIZED:  # its memory has nothing to do with ours
                assert worker.memory_kib() < 8 * 1024
            ticks = worker.cpu_ticks()
            for _ in range(20):
                worker.hello()
            assert worker.cpu_ticks() - ticks < 10


@pytest.mark.parametrize("features", [VERSION_1, VERSION_1 | RING_PACKED], ids=["split", "packed"])
def test_memory_truncated_while_the_engine_is_down(directory, features):
    """The positions are then read from memory that is gone: the session ends, the worker survives."""
    with Worker(directory) as worker:
        first = engine(directory, worker.engine)
        with first:
            worker.wait_ready()
            with FrontEnd(worker.socket).running(features) as front:
                worker.wait_state(front="running")
                first.kill()
                worker.wait_state(engine="down")
                os.ftruncate(front.memory, 0)
                with engine(directory, worker.engine, name="second"):
                    assert front.closed()
                    worker.wait_log("needs 131072 bytes of its file, which has 0")
                    worker.wait_state(front="listening", engine="up")


def test_inconsistent_ring_ends_the_session(directory):
    with Worker(directory) as worker:
        first = engine(directory, worker.engine)
        with first:
            worker.wait_ready()
            with FrontEnd(worker.socket).running() as front:
                worker.wait_state(front="running")
                first.kill()
                worker.wait_state(engine="down")
                os.pwrite(front.memory, struct.pack("<H", 1000), 0x1002)  # available index of ring 0
                with engine(directory, worker.engine, name="second"):
                    assert front.closed()
                    worker.wait_log("the driver must reset")


def test_what_the_engine_refuses_ends_the_session(directory):
    """Memory sealed against writing passes every check except the engine's mmap()."""
    with Worker(directory) as worker, engine(directory, worker.engine):
        worker.wait_ready()
        downs = worker.log().count("is down")
        with FrontEnd(worker.socket) as front:
            front.negotiate()
            front.share(seals=0x10)  # F_SEAL_FUTURE_WRITE
            with pytest.raises(ConnectionError):
                front.start_ring(0)
            worker.wait_log("the engine refused SET_MEM_TABLE")
            assert worker.log().count("is down") == downs  # the engine itself is healthy
        worker.wait_state(front="listening", engine="up")


def test_a_driver_whose_offloads_are_gone_waits_for_an_engine_that_has_them(directory):
    """As after a rollback: the session stays, and the reason is in the worker's state."""
    reason = "the engine lacks the offloads HOST_TSO4 that the driver has agreed on"
    with Worker(directory) as worker:
        with engine(directory, worker.engine, options=",tso=1") as first:
            worker.wait_ready()
            with FrontEnd(worker.socket).running(VERSION_1 | HOST_TSO4) as front:
                worker.wait_state(front="running")
                first.kill()
                worker.wait_state(engine="down")
                with engine(directory, worker.engine, name="without") as second:
                    wait_until(lambda: reason in worker.hello()["reason"], lambda: f"{worker.hello()}:\n{worker.log()}")
                    worker.wait_log(reason)
                    worker.wait_state(engine="down", front="connected")  # by which vdpa-datapath shows the reason
                    second.kill()
                with engine(directory, worker.engine, name="with", options=",tso=1"):
                    worker.wait_state(front="running", engine="up", reason="")
                    assert front.offered()[0] & HOST_TSO4


def test_offloads_that_are_switched_off(directory):
    with Worker(directory, "--offloads", "false") as worker, engine(directory, worker.engine, options=",tso=1"):
        worker.wait_ready()
        with FrontEnd(worker.socket) as front:
            assert front.offered()[0] & (HOST_TSO4 | CHECKSUM) == 0


def test_configuration_space(directory):
    with Worker(directory, "--mac", "02:11:22:33:44:55", "--mtu", "1400", queues=2) as worker, \
            engine(directory, worker.engine, queues=2):
        worker.wait_ready()
        with FrontEnd(worker.socket) as front:
            front.send(SET_PROTOCOL_FEATURES, struct.pack("<Q", CONFIG))
            assert front.offered()[0] & (MAC_ADDRESS | LINK_STATUS) == MAC_ADDRESS, "this engine does not report its link"
            space = bytes.fromhex("021122334455") + struct.pack("<HHH", 1, 2, 1400)
            for size in (12, 17, 256):  # rust-vmm's front-ends wait for as many bytes as they ask for
                reply = front.ask(GET_CONFIG, struct.pack("<III", 0, size, 0) + bytes(size))
                assert reply[12:] == space.ljust(size, b"\0")


@RINGS
@pytest.mark.release
def test_the_worker_sleeps_under_traffic(directory, ring):
    with Worker(directory) as worker, engine(directory, worker.engine):
        worker.wait_ready()
        with application(directory, worker.socket, options=option(ring)) as app:
            app.wait_received(1000, "first")
            ticks = worker.cpu_ticks()
            app.wait_received(100000, "more")
            assert worker.cpu_ticks() - ticks <= 1
            if not SANITIZED:
                assert worker.memory_kib() < 8 * 1024


def test_socket_file(directory):
    with Worker(directory, "--socket-uid", "1234", "--socket-gid", "2345", "--socket-mode", "0620", "--selinux-label",
                "system_u:object_r:container_file_t:s0") as worker, engine(directory, worker.engine):
        status = os.stat(worker.wait_ready().socket)
        assert status.st_mode & 0o7777 == 0o620
        assert (status.st_uid, status.st_gid) == (1234, 2345)
        assert os.getxattr(worker.socket, "security.selinux") == b"system_u:object_r:container_file_t:s0\0"
        assert worker.stop() == 0
        assert not worker.socket.exists()
        assert not worker.control.exists()


def test_stopped_by_the_control_channel(directory):
    with Worker(directory) as worker, engine(directory, worker.engine):
        worker.wait_ready()
        hello = worker.hello()
        assert hello["program"] == "vdpa-worker" and hello["pid"] == worker.pid and hello["device"] == "nic-0"
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(worker.control))
            control.sendall(b'{"id": 1, "op": "stop", "args": {}}\n')
            wait_until(lambda: not worker.running(), "the worker's end")
        assert worker.process.returncode == 0
        assert not worker.socket.exists()


def test_state_changes_are_events(directory):
    with Worker(directory) as worker, engine(directory, worker.engine):
        worker.wait_ready()
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(10)
            control.connect(str(worker.control))
            events = control.makefile()
            with FrontEnd(worker.socket) as front:
                event = json.loads(events.readline())
                assert (event["event"], event["front"]) == ("state", "connected")
                front.running()
                event = json.loads(events.readline())
                assert (event["front"], event["engine"]) == ("running", "up")
            event = json.loads(events.readline())
            assert (event["front"], event["reason"]) == ("listening", "the front-end disconnected")


def test_a_pod_that_connects_again_and_again_makes_few_events(directory):
    with Worker(directory) as worker, engine(directory, worker.engine):
        worker.wait_ready()
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(10)
            control.connect(str(worker.control))
            begin = time.monotonic()
            for _ in range(500):
                with socket.socket(socket.AF_UNIX) as front:
                    front.connect(str(worker.socket))
            worker.wait_state(front="listening")
            control.sendall(b'{"id": 7, "op": "hello", "args": {}}\n')
            events = list(itertools.takewhile(lambda line: '"id":7' not in line, control.makefile()))
            assert len(events) <= (time.monotonic() - begin) / 0.02 + 2
            assert len(events) < 500


@pytest.mark.parametrize("arguments, text", [
    (["--mac", "nonsense"], "MAC address 'nonsense': expected six bytes"),
    (["--socket-mode", "99"], "expected octal permissions"),
    (["--queue-pairs", "0"], "--queue-pairs"),
])
def test_wrong_arguments(directory, arguments, text):
    with Worker(directory, *arguments) as worker, engine(directory, worker.engine):
        wait_until(lambda: not worker.running(), lambda: f"the end of a worker with {arguments}")
        assert worker.process.returncode != 0
        assert text in worker.log()


def test_socket_path_too_long(directory):
    with Worker(directory, socket_name="x" * 100) as worker, engine(directory, worker.engine):
        wait_until(lambda: not worker.running(), "the end of the worker", 20)
        assert worker.process.returncode == 1
        assert "at most 107 fit" in worker.log()
