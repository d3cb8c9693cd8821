"""Packets per second between two ports: our switch compared with dpdk-testpmd (io mode: no switching at all) and OVS-DPDK.

Each switch has all its threads on one core, and the same application on the other, which negotiates the same features with
each. The peers get huge pages, without which OVS cannot run; ours has transparent ones of the same size. A row shows how busy
both cores were, by the cycles that each program counts for passes with packets: if the application is the limit, the ratio does
not compare switches.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import tempfile

from measure import Figures, blocks, finish, header, node_directories, row

import datapath
from huge_pages import huge_pages
from support import BUILD, Program, wait_until
from switch import Control

GENERATOR = BUILD / "tests/bench/packet-generator"
OVS = pathlib.Path("/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk")
PAGES = 1024  # of 2 MiB, for the two peers
ROUNDS = blocks(5)
SECONDS = 2
RUNS = [  # bytes, ways, UDP flows, rings
    (64, "one", 1, "split"), (64, "both", 1, "split"), (64, "one", 10000, "split"), (64, "one", 1, "packed"),
    (1518, "one", 1, "split"), (1518, "both", 1, "split")]
RINGS = {"split": "", "packed": ",packed_vq=1"}
# Features that our switch does not offer to a port of this MTU are off for the peers too, since they change a driver's path.
FEATURES = "mrg_rxbuf=0,in_order=0"
INDIRECT = 1 << 28
GENERATOR_CORE, SWITCH_CORE = 0, 1
FULL = 0.9  # share of a core's time; if both are below, something else used the cores


class Contender:
    """Two vhost-user sockets and the processes behind them, which run only while they are measured, since they poll. All their
    threads, including idle ones and later ones, run on the switch's core."""

    def __init__(self, sockets, *pids, busy):
        """`busy` returns how many seconds it has worked so far by its own count, and for how many packets, given the frequency
        of the processor's clock."""
        self.sockets, self.pids, self.busy = sockets, pids, busy
        self.features = set()
        for pid in pids:
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), {SWITCH_CORE})
        self.signal(signal.SIGSTOP)

    def signal(self, number):
        for pid in self.pids:
            os.kill(pid, number)

    def measure(self, *run):
        self.signal(signal.SIGCONT)
        try:
            return self.run(*run)
        finally:
            self.signal(signal.SIGSTOP)

    def run(self, size, ways, flows, rings):
        """The generator's counts, with the busy share of the switch."""
        vdevs = [f"net_virtio_user{number},path={socket},mac=02:00:00:00:00:0{number},queue_size=256,{FEATURES}{RINGS[rings]}"
                 for number, socket in enumerate(self.sockets)]
        with tempfile.TemporaryFile("w+") as log, subprocess.Popen(
                ["taskset", "-c", str(GENERATOR_CORE), GENERATOR, "--lcores", f"0@{GENERATOR_CORE}", "--no-pci", "--no-huge",
                 "-m", "256", "--no-telemetry", "--log-level=pmd.net.virtio.init:debug",
                 f"--file-prefix=generator{os.getpid()}",
                 *(word for vdev in vdevs for word in ("--vdev", vdev)), "--", str(size), ways, str(flows), str(SECONDS)],
                stdout=subprocess.PIPE, stderr=log, text=True) as generator:
            # DPDK logs to the C library's stderr; only the last three lines of the output are JSON.
            lines = (line for line in generator.stdout if line.startswith("{"))
            busy = [self.busy(json.loads(line)["hz"]) for _, line in zip(range(2), lines)]
            result = json.loads(next(lines, "{}"))
            generator.wait()
            log.seek(0)
            text = log.read()
        if generator.returncode != 0:
            raise SystemExit(f"the packet generator failed: {text[-2000:]}")
        self.features.add(agreed(text, rings))
        seconds, packets = (after - before for before, after in zip(*busy))
        return {**result, "switch": seconds / max(packets, 1) * result["pps"]}  # whatever the exact times of the two readings


def agreed(log, rings):
    """The features that the generator and the switch negotiated; a run with other features would not be comparable. Without
    indirect descriptors, which only the peers offer: the generator's packets fit into one descriptor."""
    found = set(re.findall(r"features after negotiate = (?:0x)?([0-9a-f]+)", log))
    assert len(found) == 1, f"the generator's two ports agreed on {found}"
    return rings, hex(int(found.pop(), 16) & ~INDIRECT)


@contextlib.contextmanager
def our_switch():
    """Our switch behind workers, as for a pod."""
    with node_directories() as (directory, run_dir), \
            datapath.Datapath(directory, run_dir=run_dir, log_level="info") as daemon:
        daemon.wait_serving().offer(2, cores=str(SWITCH_CORE)).wait_healthy()
        for number in range(2):
            daemon.attach(datapath.owner(f"c{number}"), f"nic-{number}")
        sockets = [daemon.socket(f"nic-{number}") for number in range(2)]
        with contextlib.closing(Control(run_dir / "switches/vdpa.io-nic/control.sock")) as control:
            # vdpa-datapath would replace a stopped switch.
            with running(Contender(sockets, daemon.pid, *daemon.processes().values(),
                                   busy=lambda hz: our_work(control.call("stats")))) as ours:
                yield ours


def our_work(stats):
    return stats["busy_ns"][0] / 1e9, sum(port["tx_packets"] for port in stats["ports"])


@contextlib.contextmanager
def testpmd():
    with node_directories() as (directory, run_dir):
        sockets = [run_dir / f"{number}.sock" for number in range(2)]
        with Program("testpmd", [
                "dpdk-testpmd", "--lcores", f"0@{SWITCH_CORE},1@{SWITCH_CORE}", "--no-pci", "--in-memory", "-m", "512",
                "--no-telemetry",
                *(word for number, socket in enumerate(sockets)
                  for word in ("--vdev", f"net_vhost{number},iface={socket},queues=1")),
                "--", "--forward-mode=io", "--auto-start", "--total-num-mbufs=8192", "--record-core-cycles",
                "--interactive"], directory, stdin=subprocess.PIPE, text=True) as program:
            wait_until(lambda: all(socket.exists() for socket in sockets), program.log)
            with running(Contender(sockets, program.pid, busy=lambda hz: testpmd_work(program, hz))) as peer:
                yield peer


def testpmd_work(program, hz):
    """It counts the cycles of passes with packets."""
    known = len(program.log())
    program.process.stdin.write("show fwd stats all\n")
    program.process.stdin.flush()
    found = wait_until(lambda: re.search(r"total cycles=(\d+) / total \w* ?packets=(\d+)\)",
                                         program.log()[known:]), lambda: program.log()[-2000:])
    return int(found[1]) / hz, int(found[2])


@contextlib.contextmanager
def ovs():
    """In a network namespace, since its bridge makes a link."""
    with contextlib.ExitStack() as stack:
        directory, run_dir = stack.enter_context(node_directories())
        netns = stack.enter_context(datapath.network_namespace())
        database = f"unix:{run_dir}/db.sock"
        environment = {f"OVS_{name}DIR": str(run_dir) for name in ("RUN", "LOG", "DB")}

        def call(*words):
            return subprocess.run(words, check=True, env={**os.environ, **environment}, capture_output=True,
                                  text=True).stdout

        def vsctl(*words):
            call("ovs-vsctl", f"--db={database}", "--timeout=20", *words)

        def work(hz):
            statistics = call("ovs-appctl", "-t", f"{run_dir}/vs.ctl", "dpif-netdev/pmd-stats-show")
            cycles, packets = (sum(map(int, re.findall(rf"{what}: (\d+)", statistics)))
                               for what in ("processing cycles", "packets received"))
            return cycles / hz, packets

        subprocess.run(["ovsdb-tool", "create", directory / "conf.db",
                        "/usr/share/openvswitch/vswitch.ovsschema"], check=True)
        stack.enter_context(Program("ovsdb", ["taskset", "-c", str(SWITCH_CORE), "ovsdb-server", f"--remote=p{database}",
                                              f"--unixctl={run_dir}/db.ctl", directory / "conf.db"], directory,
                                    environment))
        wait_until((run_dir / "db.sock").exists, "the database of OVS")
        vsctl("--no-wait", "init")
        mask = f"{1 << SWITCH_CORE:#x}"
        vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:dpdk-init=true",
              "other_config:dpdk-extra=--no-pci --no-telemetry", "other_config:dpdk-socket-mem=512",
              f"other_config:dpdk-lcore-mask={mask}", f"other_config:pmd-cpu-mask={mask}")
        vswitchd = stack.enter_context(Program("vswitchd", [
            "nsenter", f"--net={netns}", OVS, database, f"--unixctl={run_dir}/vs.ctl"], directory, environment))
        vsctl("add-br", "bench", "--", "set", "bridge", "bench", "datapath_type=netdev",
              *(word for number in range(2) for word in (
                  "--", "add-port", "bench", f"p{number}", "--", "set", "Interface", f"p{number}",
                  "type=dpdkvhostuser")))
        sockets = [run_dir / f"p{number}" for number in range(2)]
        wait_until(lambda: all(socket.exists() for socket in sockets), vswitchd.log)
        yield stack.enter_context(running(Contender(sockets, vswitchd.pid, busy=work)))


@contextlib.contextmanager
def running(contender):
    """On exit the processes continue, so that they can be stopped as usual."""
    try:
        yield contender
    finally:
        contender.signal(signal.SIGCONT)


def transparent_mib(pids):
    """The transparent huge pages of these processes, in KiB."""
    return sum(int(size) for pid in pids for size in re.findall(
        r"AnonHugePages: +(\d+) kB", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii"))) // 1024


def limit(runs):
    """Which of the two limits the packet rate, by the medians of the runs: the one whose core is full."""
    generator, switch = (statistics.median(run[name] for run in runs) for name in ("busy", "switch"))
    name = "neither" if max(generator, switch) < FULL else "the switch" if switch > generator else "the generator"
    return f"{name} limits (switch {switch:.0%} busy, generator {generator:.0%})"


def main():
    with huge_pages(PAGES), our_switch() as ours, testpmd() as io, ovs() as bridge:
        header("vdpa-switch: packets per second between two ports")
        print(f"switches on core {SWITCH_CORE}, the generator on core {GENERATOR_CORE}, its memory on ordinary pages; the "
              f"switches' packets on pages of 2 MiB, the peers' on reserved ones, ours on transparent ones: "
              f"{transparent_mib(ours.pids[1:])} MiB", flush=True)
        for run in RUNS:
            results = {contender: [] for contender in (ours, io, bridge)}
            for _ in range(ROUNDS):
                for contender, values in results.items():
                    values.append(contender.measure(*run))
            mpps = {contender: Figures([value["pps"] / 1e6 for value in values], "Mpps", 2)
                    for contender, values in results.items()}
            size, ways, flows, rings = run
            what = f"{size} B, {ways} way{'s' if ways == 'both' else ''}, {flows} flow{'s' if flows > 1 else ''}, {rings}"
            reached = size == 64 and rings == "split"
            for name, peer, target in (("testpmd io", io, ">= 0.7"), ("OVS-DPDK", bridge, ">= 2.5")):
                row(f"{what}: {name}", mpps[ours], mpps[peer], target if reached else "",
                    f"ours: {limit(results[ours])}; peer: {limit(results[peer])}")
        for peer in (io, bridge):
            assert peer.features == ours.features, f"other features: {ours.features}, {peer.features}"


main()
finish()
