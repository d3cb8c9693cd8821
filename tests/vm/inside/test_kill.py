"""Kills the programs inside ADD and DEL at seeded moments: a VF without an owner is always in its original state.

../../soak kills them inside the operations of software ports, with traffic and a plugin.
"""

import json
import os
import random
import subprocess
import threading
import time

import cni
from datapath import Datapath, network_namespace
from kernel_devices import SIMULATOR_MAC, kernel, offer, vdpa_mac
from kubelet import PodResources
from support import wait_until

ASKED = "02:00:00:00:00:09"
SEED, ROUNDS = 1848, 24
OPTIONS = ("--release-after", 1)   # seconds: short, since rounds wait for reconciliation
VICTIMS = ("cni", "datapath", "worker")
# Changes of files, which mark moments more precisely than a clock: each file appears in ADD and vanishes in DEL.
FILES = ("state/owners/{}.json", "run/workers/{}.sock", "run/devices/{}/vhost.sock", "run/devices/{}/device.json")


class Scene:
    """A node with one VF, which has settings through its PF, and a supervisor of its datapath."""

    def __init__(self, directory, igb):
        self.directory, self.igb = directory, igb
        self.took = {"ADD": 1.0, "DEL": 1.0}   # seconds of the last undisturbed one
        self.datapath = Datapath(directory, *OPTIONS).wait_serving()
        self._tell()

    def restart(self):
        self.datapath = self.datapath.restarted(*OPTIONS)
        self._tell()

    def _tell(self):
        """Acts as the plugin: a new datapath has no devices."""
        self.datapath.set_devices(offer(kernel(self.igb.vf, "sim0")))

    def call(self, command, container, netns):
        config = {"cniVersion": "1.0.0", "name": "fast", "type": "vdpa", "deviceID": self.igb.vf,
                  "datapathSocket": str(self.directory / "run/datapath.sock"), "mac": ASKED, "vlan": 100, "vlanQoS": 3,
                  "spoofchk": "off", "trust": "on", "max_tx_rate": 100,
                  "ipam": {"type": "host-local", "dataDir": str(self.directory / "ipam"),
                           "ranges": [[{"subnet": "10.9.0.0/24"}]]}}
        process = subprocess.Popen([cni.PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={
            "PATH": os.environ["PATH"], "CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_NETNS": netns,
            "CNI_IFNAME": "net1", "CNI_PATH": str(cni.DEBIAN_PLUGINS),
            "VDPA_CNI_ROOTS": str(self.directory)})
        process.stdin.write(json.dumps(config).encode())
        process.stdin.close()
        return process

    def succeed(self, command, container, netns):
        """Retries a DEL until it succeeds, as a runtime does."""
        def ended():
            begin = time.monotonic()
            process = self.call(command, container, netns)
            answer = process.stdout.read()
            self.took[command] = time.monotonic() - begin
            return process.wait() == 0 or answer.decode() and None
        wait_until(ended, f"a successful {command}", 120)

    def configured(self):
        found = self.igb.found()
        return (found["vlan_list"][0]["vlan"], found["vlan_list"][0]["qos"], found["spoofchk"], found["trust"],
                found["rate"]["max_tx"], vdpa_mac("sim0"))

    def left(self):
        """The remains of an ended attachment."""
        vf, leases = self.igb.vf, self.directory / "ipam/fast"
        if self.datapath.attachment(vf):
            yield f"attached: {self.datapath.attachment(vf)}"
        if not self.datapath.device(vf).healthy:
            yield self.datapath.device(vf).reason
        yield from (f"process {pid} of {name}" for name, pid in self.datapath.processes().items())
        yield from (str(path) for path in (self.datapath.record(vf), *self.datapath.path(vf).iterdir(),
                                           *leases.glob("10.*")) if path.exists())


class Killing:
    """Kills one victim at one moment inside one operation; all drawn from the seed."""

    def __init__(self, scene, number):
        draw = random.Random(f"{SEED} {number}")
        self.scene = scene
        self.operation, self.victim = ("ADD", "DEL")[number % 2], VICTIMS[number // 2 % len(VICTIMS)]
        self.delay = draw.random() * 1.1 * scene.took[self.operation]
        # In a DEL the files of a worker vanish with it or after it.
        exact = draw.random() < 0.5 and (self.operation, self.victim) != ("DEL", "worker")
        self.file = scene.directory / draw.choice(FILES).format(scene.igb.vf) if exact else None
        self.hit = False

    def __str__(self):
        when = f"when {self.file} changed" if self.file else f"{self.delay:.3f} s in"
        return f"{self.operation}, {self.victim} killed {when}: {'hit' if self.hit else 'had ended before'}"

    def run(self, container, netns):
        self.call, over = self.scene.call(self.operation, container, netns), threading.Event()
        killer = threading.Thread(target=self._kill, args=(over,))
        killer.start()
        self.call.stdout.read()
        self.call.wait()
        over.set()
        killer.join()
        if not self.scene.datapath.running():
            self.scene.restart()

    def _kill(self, over):
        present = self.file and self.file.exists()
        begin = time.monotonic()
        while not over.is_set():
            if self.file.exists() != present if self.file else time.monotonic() > begin + self.delay:
                break
            time.sleep(0.0005)
        while not over.is_set() and not self.hit:
            self.hit = self._strike()

    def _strike(self):
        if self.victim == "cni":
            self.call.kill()
            return True
        if self.victim == "datapath":
            self.scene.datapath.kill()
            return True
        for pid in self.scene.datapath.processes().values():
            os.kill(pid, 9)
            return True
        return False


def test_a_vf_that_nobody_has_is_as_it_was_found(directory, igb, simulator):
    with PodResources(directory):
        scene = Scene(directory, igb)
        before = igb.found()
        wanted = (100, 3, False, True, 100, ASKED)
        hits = 0
        try:
            for number in range(ROUNDS):
                killing = Killing(scene, number)
                with network_namespace() as netns:
                    container = f"c{number}"
                    if killing.operation == "DEL":
                        scene.succeed("ADD", container, netns)
                        assert scene.configured() == wanted
                    killing.run(container, netns)
                    scene.succeed("DEL", container, netns)
                    print(killing, flush=True)
                    wait_until(lambda: not list(scene.left()), lambda: f"{killing}: {list(scene.left())}", 60)
                    assert igb.found() == before, killing
                    assert vdpa_mac("sim0") == SIMULATOR_MAC, killing
                hits += killing.hit
            assert hits > ROUNDS / 2, "most kills hit"
        finally:
            with scene.datapath:
                pass
