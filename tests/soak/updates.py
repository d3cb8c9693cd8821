"""A node that is alternately updated from the previous release and rolled back, with both releases' real programs.

Two pods exchange packets all the time, one with the previous release's worker and one with this one's. The stop of one
release's daemons interrupts a third pod's ADD or DEL, which the other release's daemons must finish. After every change each
device is offered, healthy and listed by that release's vdpactl, the running pods' workers are the same processes, their switch
is of the new release, and no packet is lost."""

import concurrent.futures
import json
import pathlib
import random
import subprocess
import time

import grpc
import rpc
import vdpactl
from datapath import BUILD
from device_plugin import software
from invariants import Invariants
from kubelet import Kubelet
from node import Node
from sandbox import Sandbox
from support import wait_until
from switch import Control
from traffic import Traffic

CONFIG = software(nic=6, aux=2)
OPERATION = 0.06  # seconds: about the duration of an ADD or a DEL, within which the daemons stop


def version_of(build):
    return subprocess.run([build / "deviceplugin/ctl/vdpactl", "--version"], capture_output=True, text=True,
                          check=True).stdout.split()[-1]


class Updates:
    def __init__(self, directory, releases, seed, prefix):
        self.directory, self.random = pathlib.Path(directory), random.Random(f"{seed}/updates")
        self.prefix = f"{prefix}-u"
        self.threads = concurrent.futures.ThreadPoolExecutor(1)
        name = (pathlib.Path(__file__).parents[1] / "neighbour/previous-release").read_text().split()[0]
        self.previous, self.this = releases / name, BUILD
        self.versions = {build: version_of(build) for build in (self.previous, self.this)}
        assert self.versions[self.previous] == name != self.versions[self.this], self.versions

    def run(self, count):
        self.node = Node(self.directory, CONFIG)
        self.node.kubelet = Kubelet(self.directory, keyed_by="name")  # the previous release has one fixed socket
        self.node.build = self.previous
        with self.node:
            self.pods = [Sandbox(self.node, self.prefix, "vdpa.io/nic", f"nic-{n}") for n in range(2)]
            self._start(self.pods[0])
            self._exchange(self.this)
            self._wait_switch(self.this)
            self._start(self.pods[1])
            try:
                with Traffic(*self.pods) as self.traffic:
                    self.invariants = Invariants(self.node, self.pods, self.traffic)
                    self.invariants.wait(compare_files=False)
                    self.workers = self._workers()
                    self.traffic.losses()  # number of packets that one pod sent before the other connected
                    for number in range(2 * count):
                        self._change(number, (self.previous, self.this)[number % 2])
            finally:
                for pod in self.pods:
                    pod.call("DEL").answer()
                    pod.end()

    @staticmethod
    def _start(pod):
        pod.allocate()
        pod.add()

    def _workers(self):
        return {pod.device: self.node.worker_pid(pod.device) for pod in self.pods}

    def _exchange(self, build):
        """Stops the daemons, some by SIGKILL, and starts those of the other release."""
        for program in self.random.sample([self.node.datapath, self.node.plugin], 2):
            (program.kill if self.random.random() < 0.5 else program.stop)()
        self.node.build = build
        self.node.start_datapath()
        self.node.start_plugin()

    def _change(self, number, build):
        begin = time.monotonic()
        pod = Sandbox(self.node, self.prefix, "vdpa.io/nic", f"nic-{self.random.randrange(2, 6)}")
        operation, delay = self.random.choice(("ADD", "DEL", "nothing")), self.random.random() * OPERATION
        exact = operation != "nothing" and self.random.random() < 0.5
        pod.allocate()
        if operation != "ADD":
            pod.add()
        running = self.threads.submit(pod.call(operation).answer) if operation != "nothing" else None
        record = self.directory / f"state/owners/{pod.device}.json"
        if exact:  # the record marks the moment more precisely than a clock
            wait_until(lambda: record.exists() == (operation == "ADD") or running.done(),
                       f"a change of {record}", interval=0)
        else:
            time.sleep(delay)  # the drawn moment
        self._exchange(build)
        outcome = ""
        if operation == "ADD":
            good, pod.result = running.result()
            if not good:
                outcome = f"; {' '.join(str(pod.result).split())}"
                pod.fail()
                pod.add()
        elif operation == "DEL":
            running.result()
        if operation != "DEL":
            wait_until(self._answers, "vdpa-datapath to answer")
            pod.use(self.pods[0])
        pod.delete()
        pod.end()
        self._wait_switch(build)
        self.invariants.wait(compare_files=False)
        self._named(build)
        assert self._workers() == self.workers, f"workers of the running pods: {self._workers()}, not {self.workers}"
        losses = self.traffic.losses()
        moment = "at the owner record's change" if exact else f"{delay * 1000:.0f} ms in"
        print(f"change {number + 1} to {self.versions[build]}: {operation}, the daemons ended {moment}, at rest after "
              f"{time.monotonic() - begin:.1f} s{outcome}", flush=True)
        assert not any(gaps or twice for gaps, twice in losses.values()), f"packets of running pods: {losses}"

    def _answers(self):
        try:
            return self.node.datapath.stub.List(rpc.datapath.ListRequest(), timeout=5) is not None
        except grpc.RpcError:
            return False

    def _wait_switch(self, build):
        wait_until(lambda: self._switch_version() == self.versions[build], lambda: f"a switch of {self.versions[build]}; it "
                   f"is of {self._switch_version()}", 30)

    def _switch_version(self):
        control = Control(self.directory / "run/switches/vdpa.io-nic/control.sock")
        try:
            return control.call("hello")["version"]
        except OSError:
            return None
        finally:
            control.close()

    def _named(self, build):
        """Checks by vdpactl: every device of the node, and its owner."""
        listed = {what: json.loads(subprocess.run(
            vdpactl.command(self.directory, what, "--output", "json", program=build / "deviceplugin/ctl/vdpactl"),
            capture_output=True, text=True, check=True).stdout)
            for what in ("devices", "attachments")}
        wanted = {device for devices in self.node.devices().values() for device in devices}
        assert {device["device"] for device in listed["devices"]} == wanted, listed["devices"]
        versions = {a["device"]: a["workerVersion"] for a in listed["attachments"] if a["attached"]}
        assert versions == {"nic-0": self.versions[self.previous], "nic-1": self.versions[self.this]}, listed["attachments"]
