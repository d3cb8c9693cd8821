"""What the measurements share: repeated figures, their rows, and a process's memory."""

import contextlib
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/harness"))

from support import BUILD


class Figures:
    """The same figure measured several times: its median, least and greatest."""

    def __init__(self, values, unit, digits=1):
        self.values, self.unit, self.digits = list(values), unit, digits

    @property
    def median(self):
        return statistics.median(self.values)

    def __str__(self):
        low, middle, high = (f"{value:.{self.digits}f}" for value in (min(self.values), self.median, max(self.values)))
        return f"{middle} {self.unit} ({low}-{high})"


def header(title):
    print(f"\n{title}\n{'what':<48} {'ours: median (least-most)':<34} {'peer':<34} {'ratio':>7}  to reach", flush=True)


def row(what, ours, peer=None, target="", ratio=None):
    """`target` is the ratio to reach; a row without a peer gives its own."""
    if peer is not None:
        ratio = ours.median / peer.median
    shown = f"{ratio:.2f}" if ratio is not None else ""
    print(f"{what:<48} {str(ours):<34} {str(peer or ''):<34} {shown:>7}  {target}", flush=True)


@contextlib.contextmanager
def node_directories():
    """
    One on the disk, for what a node keeps, and one in memory for what it does not: a node's /run is that, a container's
    or a small machine's may be a disk.
    """
    with tempfile.TemporaryDirectory(prefix="vdpa-bench-", dir="/var/tmp") as kept, \
            tempfile.TemporaryDirectory(prefix="vdpa-bench-", dir="/dev/shm") as run:
        yield pathlib.Path(kept), pathlib.Path(run)


def install(directory):
    """The programs as an image has them, without what is for debuggers; returns where they are."""
    programs = directory / "bin"
    programs.mkdir()
    listed = subprocess.run([ROOT / "manifests/image/vdpa.sh", BUILD], check=True, capture_output=True, text=True)
    for program in map(pathlib.Path, listed.stdout.splitlines()):
        subprocess.run(["strip", "-o", programs / program.name, program], check=True)
    return programs


def resident_kib(pid):
    """What is in memory of it, with what it shares with others."""
    return int(next(line for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
                    if line.startswith("VmRSS:")).split()[1])


def private_kib(pid):
    """The memory that would be free if this process had not been started: what it shares with nobody."""
    total = 0
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1])
    return total
