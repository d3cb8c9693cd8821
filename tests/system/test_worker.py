"""vdpa-worker as a process, between a real DPDK application and a real rte_vhost engine."""

import json
import os
import signal
import socket
import struct

import pytest

from support import BUILD, Program, wait_until
from testpmd import application, engine

WORKER = BUILD / "deviceplugin/datapath/worker/vdpa-worker"
RINGS = pytest.mark.parametrize("ring", ["split", "packed"])


def option(ring):
    return ",packed_vq=1" if ring == "packed" else ""


class Worker(Program):
    def __init__(self, directory, *arguments, queues=1, name="worker"):
        self.socket = directory / "vhost.sock"
        self.engine = directory / "engine.sock"
        self.control = directory / "control.sock"
        super().__init__(name, [WORKER, "--device", "nic-0", "--socket", self.socket, "--engine", self.engine,
                                "--control", self.control, "--queue-pairs", queues, "--log-level", "debug",
                                *arguments], directory)

    def hello(self):
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(5)
            control.connect(str(self.control))
            control.sendall(b'{"id": 1, "op": "hello", "args": {}}\n')
            return json.loads(control.makefile().readline())["ok"]

    def wait_state(self, **expected):
        def reached():
            now = self.hello()
            return all(now[key] == value for key, value in expected.items())
        wait_until(reached, lambda: f"{expected}; is {self.hello()}:\n{self.log()}", 20)

    def wait_ready(self):
        wait_until(self.socket.exists, lambda: f"the pod's socket:\n{self.log()}", 20)
        return self

    def cpu_ticks(self):
        fields = (open(f"/proc/{self.pid}/stat").read().rsplit(")", 1)[1]).split()
        return int(fields[11]) + int(fields[12])

    def resident_kib(self):
        for line in open(f"/proc/{self.pid}/status"):
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@RINGS
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
