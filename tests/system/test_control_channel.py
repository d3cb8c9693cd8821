"""The control channel of this release's programs: frames among themselves, and the same answers in both forms."""

import os
import stat
import sys

import pytest

import rpc
from control_frames import Frames
from datapath import WORKER_DIRS, Datapath, owner, resource
from support import wait_until
from switch import Control, Switch
from testpmd import engine
from worker import Worker

control = rpc.control

# Stands between the datapath and a program: notes the first byte of what either says, by who says it.
BETWEEN = """#!{python}
import ctypes, os, socket, sys, threading
program, log = "{program}", "{log}"
path = next(word.split("=", 1)[1] for word in sys.argv if word.startswith("--control="))
inner_path = f"{{path}}.{{os.getpid()}}"
inner = socket.socket(socket.AF_UNIX)
inner.bind(inner_path)
inner.listen()
inner.setblocking(False)
if os.fork():
    os.dup2(inner.fileno(), 3)
    os.execv(program, [program, *sys.argv[1:]])
ctypes.CDLL(None).prctl(1, 9)  # ends with the program
outer = socket.socket(fileno=3)
outer.setblocking(True)

def pump(source, sink, who):
    while data := source.recv(1 << 20):
        with open(log, "a") as file:
            print(who, data[0], file=file)
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)

while True:
    client, server = outer.accept()[0], socket.socket(socket.AF_UNIX)
    server.connect(inner_path)
    for way in (client, server, "datapath"), (server, client, "program"):
        threading.Thread(target=pump, args=way, daemon=True).start()
"""


def between(directory):
    """A folder with the programs behind such a one each, and a function that returns what was noted of one of them."""
    folder = directory / "between"
    folder.mkdir()
    real = {name: next(path for path in (f"{folder_}/{name}" for folder_ in WORKER_DIRS.split(":")) if os.access(path, os.X_OK))
            for name in ("vdpa-worker", "vdpa-switch")}
    for name, program in real.items():
        wrapper = folder / name
        wrapper.write_text(BETWEEN.format(python=sys.executable, program=program, log=directory / f"{name}.said"))
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)

    def said(name):
        log = directory / f"{name}.said"
        return [tuple(line.split()) for line in log.read_text().splitlines()] if log.exists() else []
    return f"{folder}:{WORKER_DIRS}", said


FRAME, LINE = "0", str(ord("{"))


def test_the_datapath_speaks_frames_with_what_it_starts_and_with_what_it_finds_after_one_line(directory):
    worker_dirs, said = between(directory)
    with Datapath(directory, worker_dirs=worker_dirs) as datapath:
        datapath.wait_serving().set_devices(resource(count=1)).wait_healthy()
        datapath.attach(owner("c0"), "nic-0")
        wait_until(lambda: datapath.attachment("nic-0").state == "waiting", "the worker")
        for name in "vdpa-worker", "vdpa-switch":
            assert {who for who, _ in said(name)} == {"datapath", "program"}
            assert {form for who, form in said(name) if who == "datapath"} == {FRAME}, said(name)
            answers = [form for who, form in said(name) if who == "program"]
            assert set(answers[answers.index(FRAME):]) == {FRAME}, "what it said before it was asked may have been a line"
        before = {name: len(said(name)) for name in ("vdpa-worker", "vdpa-switch")}
        datapath.kill()
        with datapath.restarted() as again:
            again.wait_serving().set_devices(resource(count=1)).wait_healthy()
            wait_until(lambda: again.attachment("nic-0").worker_version, "the worker's first answer")
            assert again.detach(owner("c0"))
            for name, count in before.items():
                asked = [form for who, form in said(name)[count:] if who == "datapath"]
                assert asked[0] == LINE and asked[1:] and set(asked[1:]) == {FRAME}, said(name)[count:]


@pytest.fixture
def both():
    """Both forms of a control channel."""
    opened = []

    def connect(path):
        opened.extend((Control(path), Frames(path)))
        return opened[-2:]
    yield connect
    for each in opened:
        each.close()


EMPTY = control.Empty()
PORT = {"mac": "02:00:00:00:00:01", "vlan": 7, "mtu": 1400, "spoof_check": True, "trust": True, "max_tx_rate": 9}


def test_a_switch_answers_every_operation_alike(directory, both):
    with Switch(directory) as switch:
        lines, frames = both(switch.wait_ready().path)
        port = control.Port(id="p2", link_down=True, **PORT)
        path = lines.call("add_port", id="p1", link_up=False, **PORT)["socket"]
        assert frames.call(add_port=port).add_port.socket == path.replace("p1", "p2")
        assert not frames.call(set_port=port).WhichOneof("result")
        assert lines.call("set_port", id="p1", link_up=False, **PORT) == {}

        hello, typed = lines.call("hello"), frames.call(hello=EMPTY).hello
        assert (typed.program, typed.version, typed.pid, typed.frames) == tuple(
            hello[key] for key in ("program", "version", "pid", "frames"))
        for key in "name", "queue_pairs", "mtu", "uplink", "cores", "ports":
            value = getattr(typed.vswitch, key)
            assert (value if isinstance(value, (str, int)) else list(value)) == hello[key], key
        assert hello["ports"] == ["p1", "p2"]

        listed, typed = lines.call("ports")["ports"], frames.call(ports=EMPTY).ports.ports
        for one, other in zip(listed, typed, strict=True):
            for key in "id", *PORT:
                assert getattr(other.port, key) == one[key], key
            assert other.port.link_down != one["link_up"]
            assert (other.socket, other.connected) == (one["socket"], one["connected"])
        stats, typed = lines.call("stats", ports=["p2"])["ports"], frames.call(
            stats=control.ReadStats(ports=["p2"])).switch_stats.ports
        for one, other in zip(stats, typed, strict=True):
            assert {drop.name: drop.value for drop in other.drops} == one.pop("drops")
            assert {key: getattr(other, key) for key in one} == one

        for operation, request in (("hold", {"hold": control.Hold(milliseconds=10)}), ("go", {"go": EMPTY})):
            assert not frames.call(**request).WhichOneof("result") and lines.call(operation, ms=10) == {}
        for wrong, words in (({"add_port": port}, "port p2 exists already"),
                             ({"set_port": control.Port(id="p3", mac=PORT["mac"])}, "no port p3"),
                             ({"add_port": control.Port(id="p3", mac=PORT["mac"], vlan=4095)}, "vlan 4095: expected")):
            assert words in frames.call(**wrong).error
        assert not frames.call(remove_port=control.RemovePort(id="p2")).WhichOneof("result")
        assert lines.call("remove_port", id="p1") == {} and lines.call("ports") == {"ports": []}
        assert not frames.call(stop=EMPTY).WhichOneof("result")
        wait_until(lambda: not switch.running(), switch.log)


def test_a_worker_answers_every_operation_alike(directory, both):
    with Worker(directory) as worker, engine(directory, worker.engine):
        worker.wait_ready().wait_state(engine="up")
        lines, frames = both(worker.control)
        hello, typed = lines.call("hello"), frames.call(hello=EMPTY).hello
        status = typed.worker.status
        assert hello == {
            "program": typed.program, "version": typed.version, "pid": typed.pid, "frames": True,
            "device": typed.worker.device, "socket": typed.worker.socket, "ready": status.ready, "reason": status.reason,
            "front": control.WorkerStatus.Front.Name(status.front).lower(), "engine": "up" if status.engine_up else "down",
            **({"mac": status.limits.mac} if status.limits.mac else {}), "mtu": status.limits.mtu,
            "queue_pairs": status.limits.queue_pairs}
        assert frames.call(go=EMPTY).error == "unknown operation 'go'; expected hello or stop"
        assert lines.raw(b'{"id": 1, "op": "go"}')["error"] == frames.call(go=EMPTY).error
        assert not frames.call(stop=EMPTY).WhichOneof("result")
        wait_until(lambda: not worker.running(), worker.log)
