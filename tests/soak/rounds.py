"""One round: an operation, a victim, a moment, all drawn from the seed; then what a cluster does about it; then the look."""

import collections
import random
import statistics
import threading
import time

from invariants import SETTLED
from device_plugin import software
from processes import kill
from sandbox import Sandbox
from support import wait_until

# A pod's worker may be that of the pod which the operation is about, or of one that runs.
VICTIMS = {
    "ADD": ("cni", "datapath", "worker", "switch", "plugin", "running worker"),
    "DEL": ("cni", "datapath", "worker", "switch", "plugin", "running worker"),
    "Allocate": ("plugin", "datapath", "switch", "running worker"),
    "reload": ("plugin", "datapath", "switch", "running worker"),
}
# Moments that a file tells more exactly than a clock: it appears in ADD and vanishes in DEL.
FILES = ("state/owners/{}.json", "run/workers/{}.sock", "run/devices/{}/vhost.sock", "run/devices/{}/device.json",
         "run/devices/.spare-{}", "ipam/fast/lock")
CONFIGS = (software(nic=6), software(nic=8), software(nic=6, aux=2))
RESTART = 0.4    # seconds at most until a supervisor starts again what was killed


class Killer(threading.Thread):
    """Waits for the moment and kills; starts a daemon again, as its supervisor does."""

    def __init__(self, round_):
        super().__init__(name="killer")
        self.round = round_
        self.over = threading.Event()   # the operation
        self.killed_after = None        # seconds from its start
        self.failure = None
        self.begin = time.monotonic()
        self.start()

    def run(self):
        try:
            if self._moment():
                self._strike()
        except Exception as error:  # pylint: disable=broad-except
            self.failure = error

    def _moment(self):
        round_ = self.round
        if round_.file:
            path, present = round_.node.directory / round_.file, (round_.node.directory / round_.file).exists()
            while path.exists() == present:
                if self.over.is_set():
                    return False
            return True
        self.over.wait(round_.delay)
        return True

    def _strike(self):
        round_, node = self.round, self.round.node
        if round_.victim in ("datapath", "plugin"):
            program = getattr(node, round_.victim)
            program.process.kill()
            self.killed_after = time.monotonic() - self.begin
            program.process.wait()
            time.sleep(round_.pause)
            node.restart(round_.victim)
            return
        while True:
            pid = round_.victim_pid()
            if pid:
                kill(pid)
                self.killed_after = time.monotonic() - self.begin
                return
            if self.over.wait(0.0005):
                return

    def finish(self):
        self.over.set()
        self.join()
        if self.failure:
            raise self.failure


class Round:
    def __init__(self, soak, number):
        self.soak, self.node, self.number = soak, soak.node, number
        self.random = random.Random(f"{soak.seed}/{number}")
        self.operation = self.random.choice(list(VICTIMS))
        self.victim = self.random.choice(VICTIMS[self.operation])
        self.device = f"nic-{self.random.randrange(len(soak.pods), 6)}"
        self.target = self.random.choice(soak.pods).device     # the running pod whose worker may be the victim
        self.delay = self.random.random() * 1.1 * soak.durations.of(self.operation)
        self.pause = self.random.random() * RESTART
        exact = self.operation in ("ADD", "DEL") and self.random.random() < 0.5
        self.file = self.random.choice(FILES).format(self.device) if exact else None
        self.config = self.random.choice([c for c in CONFIGS if c != self.node.config])
        self.patient = self.random.random() < 0.8  # a second DEL comes when the datapath is there again
        self.call = None
        self.outcome = ""

    def __str__(self):
        victim = f"{self.victim} of {self.target}" if self.victim == "running worker" else self.victim
        when = f"at a change of {self.file}" if self.file else f"{self.delay * 1000:.1f} ms in"
        subject = "" if self.operation == "reload" else f" of {self.device}"
        return f"round {self.number}: {self.operation}{subject}, {victim} killed {when}"

    def victim_pid(self):
        if self.victim == "cni":
            return self.call.process.pid if self.call and self.call.process.poll() is None else None
        if self.victim == "switch":
            return self.node.switch_pid()
        return self.node.worker_pid(self.target if self.victim == "running worker" else self.device)

    def run(self):
        before = self.node.datapath.log().count(f"vdpa-worker of {self.target} is not running")
        killer = getattr(self, f"_{self.operation.lower()}")()
        if self.victim == "running worker" and killer.killed_after is not None:
            wait_until(lambda: self.target in self.soak.traffic.ended, f"the end of {self.target}'s session", 30)
            wait_until(lambda: self.node.datapath.log().count(f"vdpa-worker of {self.target} is not running") > before,
                       f"a report of the end of {self.target}'s worker", 30)
            self.soak.traffic.restart(self.target)
        assert self.soak.traffic.ended <= set(), f"sessions of {self.soak.traffic.ended} ended"
        rest = time.monotonic()
        self.soak.invariants.wait()
        return killer.killed_after, time.monotonic() - rest

    def _killed(self, operation):
        """Runs it with the killer beside it."""
        killer = Killer(self)
        try:
            operation()
        finally:
            killer.finish()
        return killer

    def _sandbox(self):
        return Sandbox(self.node, self.soak.prefix, "vdpa.io/nic", self.device)

    def _add(self):
        pod = self._sandbox()
        pod.allocate()

        def operation():
            self.call = pod.call("ADD")
            good, answer = pod.added(self.call)
            self.outcome = "" if good else str(answer)
        killer = self._killed(operation)
        if not pod.result:
            pod.fail()
            self.soak.durations.add("ADD", pod.add())
        self._use_and_end(pod)
        return killer

    def _del(self):
        pod = self._sandbox()
        pod.allocate()
        self.soak.durations.add("ADD", pod.add())

        def operation():
            self.call = pod.call("DEL")
            good, answer = self.call.answer()
            self.outcome = "" if good else str(answer)
        killer = self._killed(operation)
        if self.patient:
            self._wait_datapath()
        pod.delete()
        pod.end()
        return killer

    def _allocate(self):
        pod = self._sandbox()
        begin = time.monotonic()
        killer = self._killed(pod.allocate)
        if killer.killed_after is None:
            self.soak.durations.add("Allocate", time.monotonic() - begin)
        pod.add()
        self._use_and_end(pod)
        return killer

    def _reload(self):
        def operation():
            self.node.configure(self.config)
            wait_until(lambda: self.soak.reloaded(), "the new configuration in force", SETTLED)
        return self._killed(operation)

    def _use_and_end(self, pod):
        """Its socket serves an application, which hears one of the running pods."""
        self._wait_datapath()
        self.soak.use(pod)
        self.soak.durations.add("DEL", pod.delete())
        pod.end()

    def _wait_datapath(self):
        wait_until(self.soak.datapath_answers, "vdpa-datapath to answer", SETTLED)


class Durations:
    """How long each operation takes when nothing is killed: the median of the last few."""

    def __init__(self):
        self.seconds = collections.defaultdict(lambda: collections.deque(maxlen=9))

    def add(self, operation, seconds):
        self.seconds[operation].append(seconds)

    def of(self, operation):
        return statistics.median(self.seconds[operation])
