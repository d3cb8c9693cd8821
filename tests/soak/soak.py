"""Kills the programs of a node inside its operations, round after round, and checks the invariants each time.

soak.py [ROUNDS] [SEED]: see --help. Then repeats attach and detach as often as requested, and checks the use of memory,
descriptors and files. A failure prints how to repeat it and keeps the node's directory with its logs."""

import argparse
import collections
import concurrent.futures
import contextlib
import ctypes
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1] / "harness")]

import grpc  # noqa: E402
import rpc  # noqa: E402
from footprint import Footprint  # noqa: E402
from invariants import Invariants  # noqa: E402
from node import Node  # noqa: E402
from rounds import CONFIGS, VICTIMS, Durations, Round  # noqa: E402
from sandbox import Sandbox  # noqa: E402
from support import wait_until  # noqa: E402
from traffic import Traffic  # noqa: E402
from updates import Updates  # noqa: E402

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, CLONE_NEWNET = 1, 36, 0x40000000
SAMPLES = 20            # samples of the footprint, over all cycles
SETTLING = 0.4          # the part of the cycles before the first sample: allocators and thread pools reach their size
ATTEMPTS = 10           # of a round, each at another moment
# The share of kills that must hit, of each kind with at least this many and of all. Measured on two processors: 87 % of all at
# a load of 20 and of 30, 79 % at a load of 50; of a kind at least 5 of 7 in 100 rounds.
SHARE, ENOUGH = 0.5, 20
LEAK = 512              # KiB; 85 bytes per cycle of 10,000, less than any object kept per attachment; of 300, 3 KiB


class Soak:
    def __init__(self, node, seed, prefix):
        self.node, self.seed, self.prefix = node, seed, prefix
        self.durations = Durations()
        self.pods = [Sandbox(node, prefix, "vdpa.io/nic", f"nic-{n}") for n in range(2)]

    @contextlib.contextmanager
    def started(self):
        """Two pods run and exchange packets, and every configuration has been in force once."""
        wait_until(self.reloaded, "the first configuration in force")
        for pod in self.pods:
            pod.allocate()
            pod.add()
        try:
            with Traffic(*self.pods) as self.traffic:
                self.invariants = Invariants(self.node, self.pods, self.traffic)
                self._rehearse()
                yield self
        finally:
            for pod in self.pods:
                pod.call("DEL").answer()
                pod.end()

    def _rehearse(self):
        """Measures without kills: the durations of the operations, and the state at rest of each configuration."""
        for config in CONFIGS[1:] + CONFIGS[:1]:
            begin = time.monotonic()
            self.node.configure(config)
            wait_until(self.reloaded, f"{config} in force")
            self.durations.add(f"reload {config}", time.monotonic() - begin)
            for n in range(3):
                pod = Sandbox(self.node, self.prefix, "vdpa.io/nic", f"nic-{2 + n}")
                begin = time.monotonic()
                pod.allocate()
                self.durations.add("Allocate", time.monotonic() - begin)
                self.durations.add("ADD", pod.add())
                self.use(pod)
                self.durations.add("DEL", pod.delete())
                pod.end()
            self.invariants.remember()
        self._assert_no_loss()

    def _assert_no_loss(self):
        """Losses since the last check, during which nothing was killed."""
        for device, (gaps, twice) in self.traffic.losses().items():
            assert not gaps and not twice, f"{device} missed packets of a running pod, in rows of {gaps}; twice: {twice}"

    def reloaded(self):
        """Whether the kubelet knows exactly the devices of the configuration."""
        served = {resource: plugin.devices for resource, plugin in list(self.node.kubelet.plugins.items())
                  if not plugin.ended.is_set()}
        return served == self.node.devices()

    def datapath_answers(self):
        try:
            self.node.datapath.stub.List(rpc.datapath.ListRequest(), timeout=5)
            return True
        except grpc.RpcError:
            return False

    def use(self, pod):
        pod.use(self.pods[0])

    def rounds(self, count):
        """Runs every kind of operation and victim, in an order drawn from the seed; repeats one at another moment until it
        hits."""
        kinds = [(operation, victim) for operation, victims in VICTIMS.items() for victim in victims]
        attempts, hits, lost = (collections.Counter() for _ in range(3))
        deck = []
        for number in range(1, count + 1):
            if not deck:
                deck = random.Random(f"{self.seed}/{number}/order").sample(kinds, len(kinds))
            kind = deck.pop()
            for attempt in range(ATTEMPTS):
                current = Round(self, number, kind, attempt)
                attempts[kind] += 1
                hit = self._run(current)
                lost[kind] += current.lost
                if hit:
                    hits[kind] += 1
                    break
            else:
                raise AssertionError(f"round {number}: none of {ATTEMPTS} kills hit {kind[1]} inside {kind[0]}")
        print(f"\n{count} rounds: kills that hit the victim inside the operation, and the running pods' lost packets")
        for kind in sorted(attempts):
            print(f"  {kind[0]:9} {kind[1]:15} {hits[kind]:5} of {attempts[kind]:5} {lost[kind]:9}")
        few = [f"{hits[kind]} of {attempts[kind]} kills hit {kind[1]} inside {kind[0]}" for kind in sorted(attempts)
               if attempts[kind] >= ENOUGH and hits[kind] < SHARE * attempts[kind]]
        if hits.total() < SHARE * attempts.total():
            few.append(f"{hits.total()} of {attempts.total()} kills hit at all")
        assert not few, "; ".join(few)

    def _run(self, current):
        """Returns whether the kill hit."""
        try:
            killed = current.run()
        except Exception:
            print(f"FAILED in {current}\n  the operation's answer: {current.outcome or 'good'}", flush=True)
            raise
        print(f"{current}: " + (f"hit after {killed * 1000:.1f} ms" if killed is not None else "hit nothing") +
              f", at rest {current.rest:.1f} s later, {current.lost} packets lost" +
              (f"; {' '.join(current.outcome.split())}" if current.outcome else ""), flush=True)
        return killed is not None

    def cycles(self, count):
        """Runs ADD and DEL, four at a time, without kills."""
        footprint = None
        batch = max(4, count // SAMPLES)
        done = 0
        begin = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            while done < count:
                list(threads.map(lambda n: self._cycle(n, batch // 4), range(2, 6)))
                done += batch // 4 * 4
                self.invariants.wait()
                if done >= count * SETTLING:
                    footprint = footprint or Footprint(self.node)
                    footprint.sample()
        print(f"\n{done} cycles of ADD and DEL in {time.monotonic() - begin:.0f} s; the figures from cycle "
              f"{int(count * SETTLING)} on:\n{footprint.table()}", flush=True)
        grown = list(footprint.growth(LEAK))
        assert not grown, "grown: " + "; ".join(grown)
        self._assert_no_loss()

    def _cycle(self, n, times):
        pod = Sandbox(self.node, self.prefix, "vdpa.io/nic", f"nic-{n}")
        pod.allocate()
        for _ in range(times):
            pod.add()
            pod.delete()
        pod.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rounds", nargs="?", type=int, default=1000)
    parser.add_argument("seed", nargs="?", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--cycles", type=int, help="ADD and DEL without kills, afterwards; default: ten per round")
    parser.add_argument("--previous", type=pathlib.Path, help="programs of the previous release, as tests/neighbour/build.sh "
                        "makes them: first the node is updated to this release and rolled back")
    parser.add_argument("--updates", type=int, help="this many times; default: one per 50 rounds")
    options = parser.parse_args()
    cycles = 10 * options.rounds if options.cycles is None else options.cycles
    updates = (options.rounds + 49) // 50 if options.updates is None else options.updates
    libc = ctypes.CDLL(None, use_errno=True)
    # If the soak or its shell is terminated, no processes and namespaces are left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # Orphans are reparented to us, as to a node's init, and the programs get a network namespace without the host's devices.
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) or libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "needs root")

    repeat = (f"tests/soak/soak.py {options.rounds} {options.seed} --cycles {cycles}" +
              (f" --previous {options.previous} --updates {updates}" if options.previous else ""))
    print(f"seed {options.seed}; to repeat: {repeat}", flush=True)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="vdpa-soak-", dir="/tmp"))
    try:
        if options.previous:
            (directory / "updates").mkdir()
            Updates(directory / "updates", options.previous, options.seed, directory.name).run(updates)
        with Node(directory, CONFIGS[0]) as node, Soak(node, options.seed, directory.name).started() as soak:
            soak.rounds(options.rounds)
            if cycles:
                soak.cycles(cycles)
            soak.invariants.wait_tidied()
    except Exception:
        print(f"FAILED; to repeat: {repeat}\nlogs are in {directory}", flush=True)
        raise
    except BaseException:  # terminated from outside
        shutil.rmtree(directory)
        raise
    finally:
        for namespace in pathlib.Path("/run/netns").glob(f"{directory.name}-*"):
            subprocess.run(["ip", "netns", "del", namespace.name], check=False)
    shutil.rmtree(directory)


main()
