"""One round: an operation, a victim and a moment, all drawn from the seed; then the cluster's reaction; then the check."""

import collections
import os
import random
import signal
import statistics
import threading
import time

from invariants import SETTLED
from device_plugin import software
from processes import kill
from sandbox import Sandbox
from support import wait_until
from traffic import RATE

# The victim may be the worker of the operation's pod, or of a running pod.
VICTIMS = {
    "ADD": ("cni", "datapath", "worker", "switch", "plugin", "running worker"),
    "DEL": ("cni", "datapath", "worker", "switch", "plugin", "running worker"),
    "Allocate": ("plugin", "datapath", "switch", "running worker"),
    "reload": ("plugin", "datapath", "switch", "running worker"),
}
# Changes of files, which mark moments more precisely than a clock: each file appears in ADD and vanishes in DEL.
FILES = ("state/owners/{}.json", "run/workers/{}.lock", "run/workers/{}.sock", "run/switches/vdpa.io-nic/ports/{}.sock",
         "run/devices/{}/eal-args", "run/devices/{}/vhost.sock", "run/devices/{}/device.json")
# The part of an operation from which a clock draws the moment; during the rest, its caller finishes. DEL stops the worker
# first, before it removes any file.
PART = 0.9
PARTS = {("DEL", "worker"): 0.3}
CONFIGS = (software(nic=6), software(nic=8), software(nic=6, aux=2))
# The packets that a running pod may lose, in one gap each, while the switch or the pod's worker is down: this many seconds'
# worth, in addition to the time in which the pod had no session. The death of any other program loses none.
LOSSES = {"switch": 2.0, "running worker": 2.0}
RESTART = 0.4    # maximum seconds until a supervisor restarts a killed program


class Killer(threading.Thread):
    """Waits for the moment and kills the victim; restarts a daemon, as its supervisor does."""

    def __init__(self, round_):
        super().__init__(name="killer")
        self.round = round_
        self.over = threading.Event()   # the operation has ended
        self.struck = threading.Event()
        self.killed_at = None
        self.failure = None
        self.begin = time.monotonic()
        self.start()

    def run(self):
        try:
            if self._moment():
                self._strike()
        except Exception as error:  # pylint: disable=broad-except
            self.failure = error
        finally:
            self.struck.set()

    def _moment(self):
        """Whether the moment came before the operation ended."""
        round_ = self.round
        if not round_.file:
            return not self.over.wait(round_.delay)
        path = round_.node.directory / round_.file
        before = identity(path)
        while identity(path) == before:
            if self.over.is_set():
                return False
        return True

    def _strike(self):
        round_, node = self.round, self.round.node
        if round_.victim in ("datapath", "plugin"):
            program = getattr(node, round_.victim)
            program.process.kill()
            self.killed_at = time.monotonic()
            self.struck.set()
            program.process.wait()
            time.sleep(round_.pause)
            node.restart(round_.victim)
            return
        while not self.over.is_set():
            pid = round_.victim_pid()
            if pid:
                kill(pid)
                self.killed_at = time.monotonic()
                return
            time.sleep(0.0005)

    def finish(self):
        self.over.set()
        self.join()
        if self.failure:
            raise self.failure


def identity(path):
    """Changes when the file appears, vanishes, is replaced or written."""
    try:
        state = os.stat(path)
        return state.st_ino, state.st_mtime_ns
    except FileNotFoundError:
        return None


class Round:
    """`attempt` is above 0 if the last kill missed."""

    def __init__(self, soak, number, kind, attempt):
        self.soak, self.node, self.number = soak, soak.node, number
        self.random = random.Random(f"{soak.seed}/{number}/{attempt}")
        self.operation, self.victim = kind
        self.device = f"nic-{self.random.randrange(len(soak.pods), 6)}"
        self.target = self.random.choice(soak.pods).device     # the running pod whose worker may be the victim
        self.config = self.random.choice([c for c in CONFIGS if c != self.node.config])
        # Earlier with each attempt: the machine may have been busy when the durations were measured.
        self.delay = self.random.random() * PARTS.get(kind, PART) * soak.durations.of(self._timed_as()) / (1 + attempt)
        self.pause = self.random.random() * RESTART
        exact = self.operation in ("ADD", "DEL") and kind not in PARTS and self.random.random() < 0.5
        self.file = self.random.choice(FILES).format(self.device) if exact else None
        self.patient = self.random.random() < 0.8  # a second DEL follows once the datapath is back
        self.call = None
        self.calls = []     # when each began and ended
        self.outcome = ""

    def __str__(self):
        victim = f"{self.victim} of {self.target}" if self.victim == "running worker" else self.victim
        when = f"at a change of {self.file}" if self.file else f"{self.delay * 1000:.1f} ms in"
        subject = "" if self.operation == "reload" else f" of {self.device}"
        return f"round {self.number}: {self.operation}{subject}, {victim} killed {when}"

    def _timed_as(self):
        """Reloads take the same time only if they lead to the same configuration."""
        return f"reload {self.config}" if self.operation == "reload" else self.operation

    def victim_pid(self):
        if self.victim == "cni":
            return self.call.process.pid if self.call and self.call.process.poll() is None else None
        if self.victim == "switch":
            return self.node.switch_pid()
        return self.node.worker_pid(self.target if self.victim == "running worker" else self.device)

    def run(self):
        """Returns when the kill hit, in seconds since the operation began, or None if it missed."""
        before = self.node.datapath.log().count(f"vdpa-worker of {self.target} is not running")
        killer = getattr(self, f"_{self.operation.lower()}")()
        if self.victim == "running worker" and killer.killed_at is not None:
            wait_until(lambda: self.target in self.soak.traffic.ended, f"the end of {self.target}'s session", 30)
            wait_until(lambda: self.node.datapath.log().count(f"vdpa-worker of {self.target} is not running") > before,
                       f"a report of the end of {self.target}'s worker", 30)
            self.soak.traffic.restart(self.target)
        assert not self.soak.traffic.ended, f"sessions of {list(self.soak.traffic.ended)} ended"
        rest = time.monotonic()
        self.soak.invariants.wait()
        self.rest = time.monotonic() - rest
        self._check_losses()
        return self._hit(killer)

    def _hit(self, killer):
        if self.victim == "cni" and self.call.process.returncode != -signal.SIGKILL:
            return None
        for begin, end in self.calls:
            if killer.killed_at is not None and begin <= killer.killed_at <= end:
                return killer.killed_at - begin
        return None

    def _check_losses(self):
        self.lost = 0
        seconds = LOSSES.get(self.victim, 0)
        most = (self.soak.traffic.away() + seconds) * RATE if seconds else 0
        for device, (gaps, twice) in self.soak.traffic.losses().items():
            self.lost += sum(gaps)
            assert len(gaps) <= (1 if seconds else 0) and sum(gaps) <= most, \
                f"{device} missed packets of a running pod, in rows of {gaps}"
            assert not twice, f"{device} got {twice} packets of a running pod twice"

    def _killed(self, operation):
        """Runs the operation while the killer waits for its moment."""
        killer = Killer(self)
        try:
            self._timed(operation)
        finally:
            killer.finish()
        return killer

    def _timed(self, operation):
        begin = time.monotonic()
        try:
            operation()
        finally:
            self.calls.append((begin, time.monotonic()))

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
        """One after the other, since some are over before a clock could wake a thread."""
        pod = self._sandbox()
        killer = Killer(self)
        try:
            while not killer.struck.is_set():
                self._timed(pod.allocate)
            pod.allocate()
        finally:
            killer.finish()
        pod.add()
        self._use_and_end(pod)
        return killer

    def _reload(self):
        def operation():
            self.node.configure(self.config)
            wait_until(self.soak.reloaded, "the new configuration in force", SETTLED)
        return self._killed(operation)

    def _use_and_end(self, pod):
        """The new socket serves an application, which receives a frame from a running pod."""
        self._wait_datapath()
        self.soak.use(pod)
        self.soak.durations.add("DEL", pod.delete())
        pod.end()

    def _wait_datapath(self):
        wait_until(self.soak.datapath_answers, "vdpa-datapath to answer", SETTLED)


class Durations:
    """The duration of each operation without a kill: the median of the last few."""

    def __init__(self):
        self.seconds = collections.defaultdict(lambda: collections.deque(maxlen=9))

    def add(self, operation, seconds):
        self.seconds[operation].append(seconds)

    def of(self, operation):
        return statistics.median(self.seconds[operation])
