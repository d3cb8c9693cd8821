"""Shared by the measurements: repeated figures, the rows of the report, and a process's memory."""

import contextlib
import operator
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/harness"))

from support import BUILD  # noqa: E402


BLOCKS = int(os.environ.get("BENCH_BLOCKS", "0"))  # fewer than usual, to check that everything runs
missed = []
# If it is terminated, no polling processes, namespaces and huge pages are left behind.
signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))


def blocks(usual):
    """The number of repetitions, which a user of `./run bench` may set."""
    return BLOCKS or usual


class Figures:
    """A figure measured several times, once per block: its median, minimum and maximum."""

    def __init__(self, values, unit, digits=1):
        self.values, self.unit, self.digits = list(values), unit, digits

    @property
    def median(self):
        return statistics.median(self.values)

    def spread(self):
        """The spread: half of the blocks are within this distance of each other."""
        if len(self.values) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return high - low

    def beside(self, peer):
        """The ratios of blocks measured one after the other."""
        assert len(self.values) == len(peer.values), "as many blocks of one as of the other"
        return Figures([one / other for one, other in zip(self.values, peer.values)], "", 2)

    def __str__(self):
        low, middle, high = (f"{value:.{self.digits}f}" for value in (min(self.values), self.median, max(self.values)))
        return f"{middle} {self.unit} ({low}-{high})"


class Target:
    """A limit in its printed form: "<= 1.5", ">= 0.7", "< 20 ms"; in the unit of the figures."""

    COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}

    def __init__(self, text):
        comparison, bound, *_ = text.split()
        self.reached, self.bound = self.COMPARISONS[comparison], float(bound)

    def verdict(self, figures):
        """A median beyond the limit by at most the spread of its blocks is no miss, since noise may explain it."""
        if self.reached(figures.median, self.bound):
            return ""
        return "MISSED" if abs(figures.median - self.bound) > figures.spread() else "within the spread"


def header(title):
    print(f"\n{title}\n{'what':<48} {'ours: median (least-most)':<34} {'peer':<34} {'ratio':>7}  to reach", flush=True)


def row(what, ours, peer=None, target="", limit=""):
    """`target` is the ratio to reach; a row without a peer has its own figure as the target. `limit` names the bottleneck."""
    ratio = ours.beside(peer) if peer is not None else None
    verdict = Target(target).verdict(ratio or ours) if target else ""
    if verdict == "MISSED":
        missed.append(f"{what}: {ratio or ours}, to reach: {target}")
    end = "; ".join(filter(None, [f"{target} {verdict}".strip(), limit]))
    print(f"{what:<48} {str(ours):<34} {str(peer or ''):<34} {f'{ratio.median:.2f}' if ratio else '':>7}  {end}".rstrip(),
          flush=True)


def skip(what, why):
    """A row that can't be measured counts as missed."""
    missed.append(f"{what}: not measured: {why}")
    print(f"{what:<48} not measured: {why}", flush=True)


def finish():
    """Ends a measurement; the exit status shows whether all targets were reached."""
    for line in missed:
        print(f"MISSED {line}", flush=True)
    sys.exit(1 if missed else 0)


@contextlib.contextmanager
def preferred():
    """Leaves little of the machine's cores to other programs meanwhile: a stopped switch or guest would be a slow one. The
    kernel weighs sessions, and then the processes of each."""
    session = pathlib.Path("/proc/self/autogroup")
    before = os.getpriority(os.PRIO_PROCESS, 0), re.search(r"nice (\S+)", session.read_text()) if session.exists() else None
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    if before[1]:
        session.write_text("-20")
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before[0])
        if before[1]:
            session.write_text(before[1][1])


@contextlib.contextmanager
def node_directories():
    """
    A directory on the disk for files that a node keeps, and one in memory for those that it doesn't: a node's /run is in
    memory, while a container's or a small machine's may be on a disk.
    """
    with tempfile.TemporaryDirectory(prefix="vdpa-bench-", dir="/var/tmp") as kept, \
            tempfile.TemporaryDirectory(prefix="vdpa-bench-", dir="/dev/shm") as run:
        yield pathlib.Path(kept), pathlib.Path(run)


def install(directory):
    """Copies the programs stripped, as in an image; returns their folder."""
    programs = directory / "bin"
    programs.mkdir()
    listed = subprocess.run([ROOT / "manifests/image/vdpa.sh", BUILD], check=True, capture_output=True, text=True)
    for program in map(pathlib.Path, listed.stdout.splitlines()):
        subprocess.run(["strip", "-o", programs / program.name, program], check=True)
    return programs


def resident_kib(pid):
    """Its memory that is resident, including memory shared with others."""
    return int(next(line for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
                    if line.startswith("VmRSS:")).split()[1])


def private_kib(pid):
    """Its private memory: the memory that would be free without this process."""
    total = 0
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1])
    return total
