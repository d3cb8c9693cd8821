"""The cost of an update to this release and of a rollback to the previous one, compared with a restart of the previous one: the
time from a datapath's start until it has adopted all attachments, and how long no packet passes while it replaces their switch
(the previous release never replaces its own switch: for it, a killed one is measured). Also the resources of each datapath at
rest, by the number of attached devices.

The programs of the previous release are those of tests/neighbour/build.sh.
"""

import contextlib
import os
import pathlib
import signal
import tempfile
import time

from measure import Figures, blocks, finish, header, private_kib, row

from datapath import Datapath, owner, program_of, resource, worker_dirs_of
from neighbour import VERSION
from pod import Pod, frame, mac
from processes import listener
from support import BUILD, CACHE, wait_until

BLOCKS = blocks(7)
ATTACHED = 16
PREVIOUS = CACHE / "releases" / VERSION
WAYS = {f"{VERSION} to this release": (PREVIOUS, BUILD), f"this release to {VERSION}": (BUILD, PREVIOUS),
        f"{VERSION} to {VERSION}": (PREVIOUS, PREVIOUS)}
RESTING = (0, 30, 1024)  # attachments
MAX_PORTS = 500          # attachments of one switch
RESTS = 5                # seconds
AFTERWARDS = 0.3  # seconds for which packets are counted after the switch is back


def daemon(directory, build, name):
    return Datapath(directory, name=name, program=program_of(build), worker_dirs=worker_dirs_of(build), log_level="info")


def states(datapath):
    """The states of all attachments; empty before it answers, which its channel would notice late."""
    if not listener(datapath.run_dir / "datapath.sock"):
        return []
    return [attachment.state for attachment in datapath.list().attachments]


@contextlib.contextmanager
def attached(build, count):
    """A directory, and a datapath with this many ready attachments in it."""
    with tempfile.TemporaryDirectory(prefix="vdpa-bench-", dir="/dev/shm") as name:
        directory = pathlib.Path(name)
        with daemon(directory, build, "first") as datapath:
            datapath.wait_serving().offer(count=count).wait_healthy()
            for n in range(count):
                datapath.attach(owner(f"c{n}"), f"nic-{n}", settings={"mac": mac(n + 1)})
            wait_until(lambda: states(datapath) == ["waiting"] * count, lambda: f"all ready: {states(datapath)}")
            yield directory, datapath


def adoption(before, after):
    """Milliseconds from the next datapath's start until it has adopted all workers."""
    with attached(before, ATTACHED) as (directory, datapath):
        datapath.kill()
        begin = time.perf_counter()
        with daemon(directory, after, "second") as second:
            wait_until(lambda: states(second) == ["waiting"] * ATTACHED, lambda: f"all adopted: {states(second)}",
                       interval=0.001)
            return (time.perf_counter() - begin) * 1000


def resting(build, count):
    """Threads, and MiB of private memory, of a datapath at rest with this many attachments."""
    resources = {f"r{n}": min(MAX_PORTS, count - n * MAX_PORTS) for n in range(-(-count // MAX_PORTS) or 1)}
    with tempfile.TemporaryDirectory(prefix="vdpa-bench-", dir="/dev/shm") as name:
        with daemon(pathlib.Path(name), build, "first") as datapath:
            datapath.wait_serving()
            datapath.set_devices(*(resource(f"vdpa.io/{kind}", max(1, ports)) for kind, ports in resources.items()))
            devices = [f"{kind}-{n}" for kind, ports in resources.items() for n in range(ports)]
            for device in devices:
                datapath.wait_healthy(device).attach(owner(device), device)
            wait_until(lambda: set(states(datapath)) <= {"waiting"}, "all ready", 60)
            tasks = pathlib.Path(f"/proc/{datapath.pid}/task")
            least = len(list(tasks.iterdir()))
            for _ in range(RESTS):   # until the threads of the calls have ended
                time.sleep(1)
                least = min(least, len(list(tasks.iterdir())))
            private = private_kib(datapath.pid)
            for device in devices:
                datapath.detach(owner(device))
            return least, private / 1024


class Exchange:
    """One pod sends to another, which records the longest time without a packet."""

    def __init__(self, datapath):
        self.sender, self.receiver = (Pod(datapath.socket(f"nic-{n}"), mac(n + 1)) for n in range(2))
        self.longest, self.last = 0.0, None

    def run_until(self, condition):
        """Continues for a moment, in which packets pass again."""
        end = None
        while end is None or self.last is None or self.last < end:
            if self.sender.idle():
                self.sender.offer(frame(self.receiver.mac, self.sender.mac))
            if self.receiver.take():
                now = time.perf_counter()
                self.longest = max(self.longest, now - (self.last or now))
                self.last = now
            if end is None and condition():
                end = time.perf_counter() + AFTERWARDS

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sender.__exit__()
        self.receiver.__exit__()


def gap(before, after):
    """Milliseconds without a packet while a datapath replaces the switch, or restarts a killed one."""
    with attached(before, 2) as (directory, datapath), Exchange(datapath) as exchange:
        exchange.run_until(lambda: exchange.last is not None)
        exchange.longest = 0.0
        old = datapath.switch_pid()
        if before == after:
            os.kill(old, signal.SIGKILL)
            exchange.run_until(lambda: "vdpa.io-nic" in datapath.processes() and datapath.switch_pid() != old)
            return exchange.longest * 1000
        datapath.kill()  # it takes no time, so that no packets need to be counted meanwhile
        with daemon(directory, after, "second") as second:
            exchange.run_until(lambda: "replaced vdpa-switch of vdpa.io/nic" in second.log())
        return exchange.longest * 1000


def main():
    figures = {(measure, way): [] for measure in (adoption, gap) for way in WAYS}
    for _ in range(BLOCKS):
        for (measure, way), values in figures.items():
            values.append(measure(*WAYS[way]))
    header(f"Beside release {VERSION}, {BLOCKS} blocks")
    ours = {(measure, way): Figures(values, "ms") for (measure, way), values in figures.items()}
    *changes, restart = WAYS
    for way in changes:
        row(f"{ATTACHED} attachments adopted: {way}", ours[adoption, way], ours[adoption, restart], "<= 1.5")
    for way in changes:
        row(f"no packet, switch replaced: {way}", ours[gap, way], target="< 1000 ms",
            limit=f"{VERSION} after a kill: {ours[gap, restart]}")
    for count in RESTING:
        (threads, private), (threads_before, private_before) = resting(BUILD, count), resting(PREVIOUS, count)
        row(f"threads at {count} attachments", Figures([threads], "", 0), target="<= 24", limit=f"{VERSION}: {threads_before}")
        row(f"private memory at {count} attachments", Figures([private], "MiB"), Figures([private_before], "MiB"))
    finish()


main()
