"""Packets per second between two ports: our switch beside dpdk-testpmd (io mode: no switching at all) and OVS-DPDK.

Each on core 1, with the same application on core 0. The peers get hugepages, without which OVS cannot run; ours does
without them.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess

from measure import Figures, blocks, finish, header, node_directories, row

import datapath
from support import BUILD, Program, wait_until

GENERATOR = BUILD / "tests/bench/packet-generator"
OVS = pathlib.Path("/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk")
HUGEPAGES = pathlib.Path("/proc/sys/vm/nr_hugepages")
PAGES = 1024  # of 2 MiB, for the two peers
ROUNDS = blocks(5)
SECONDS = 2
RUNS = [  # bytes, ways, UDP flows, rings
    (64, "one", 1, "split"), (64, "both", 1, "split"), (64, "one", 10000, "split"), (64, "one", 1, "packed"),
    (1518, "one", 1, "split"), (1518, "both", 1, "split")]
RINGS = {"split": "", "packed": ",packed_vq=1"}


class Contender:
    """Two vhost-user sockets, and the processes behind them, which run only while they are measured: they poll."""

    def __init__(self, sockets, *pids):
        self.sockets, self.pids = sockets, pids
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
        vdevs = [f"net_virtio_user{number},path={socket},mac=02:00:00:00:00:0{number},queue_size=256{RINGS[rings]}"
                 for number, socket in enumerate(self.sockets)]
        done = subprocess.run(
            [GENERATOR, "--lcores", "0@0", "--no-pci", "--no-huge", "-m", "256", "--no-telemetry",
             f"--file-prefix=generator{os.getpid()}", *(word for vdev in vdevs for word in ("--vdev", vdev)),
             "--", str(size), ways, str(flows), str(SECONDS)], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"the packet generator failed: {done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])["pps"] / 1e6


@contextlib.contextmanager
def our_switch():
    """Behind workers, as a pod meets it."""
    with node_directories() as (directory, run_dir), \
            datapath.Datapath(directory, run_dir=run_dir, log_level="info") as daemon:
        daemon.wait_serving().offer(2, cores="1").wait_healthy()
        for number in range(2):
            daemon.attach(datapath.owner(f"c{number}"), f"nic-{number}")
        sockets = [daemon.socket(f"nic-{number}") for number in range(2)]
        # vdpa-datapath would replace a switch that hangs.
        with running(Contender(sockets, daemon.pid, daemon.switch_pid())) as ours:
            yield ours


@contextlib.contextmanager
def testpmd():
    with node_directories() as (directory, run_dir):
        sockets = [run_dir / f"{number}.sock" for number in range(2)]
        with Program("testpmd", [
                "dpdk-testpmd", "--lcores", "0@0,1@1", "--no-pci", "--in-memory", "-m", "512", "--no-telemetry",
                *(word for number, socket in enumerate(sockets)
                  for word in ("--vdev", f"net_vhost{number},iface={socket},queues=1")),
                "--", "--forward-mode=io", "--auto-start", "--total-num-mbufs=8192"], directory,
                stdin=subprocess.PIPE) as program:
            wait_until(lambda: all(socket.exists() for socket in sockets), program.log)
            with running(Contender(sockets, program.pid)) as peer:
                yield peer


@contextlib.contextmanager
def ovs():
    """In a network namespace, since its bridge makes a link."""
    with contextlib.ExitStack() as stack:
        directory, run_dir = stack.enter_context(node_directories())
        netns = stack.enter_context(datapath.network_namespace())
        database = f"unix:{run_dir}/db.sock"
        environment = {f"OVS_{name}DIR": str(run_dir) for name in ("RUN", "LOG", "DB")}

        def vsctl(*words):
            subprocess.run(["ovs-vsctl", f"--db={database}", "--timeout=20", *words], check=True,
                           env={**os.environ, **environment})

        subprocess.run(["ovsdb-tool", "create", directory / "conf.db",
                        "/usr/share/openvswitch/vswitch.ovsschema"], check=True)
        stack.enter_context(Program("ovsdb", ["ovsdb-server", f"--remote=p{database}", f"--unixctl={run_dir}/db.ctl",
                                              directory / "conf.db"], directory, environment))
        wait_until((run_dir / "db.sock").exists, "the database of OVS")
        vsctl("--no-wait", "init")
        vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:dpdk-init=true",
              "other_config:dpdk-extra=--no-pci --no-telemetry", "other_config:dpdk-socket-mem=512",
              "other_config:dpdk-lcore-mask=0x1", "other_config:pmd-cpu-mask=0x2")
        vswitchd = stack.enter_context(Program("vswitchd", [
            "nsenter", f"--net={netns}", OVS, database, f"--unixctl={run_dir}/vs.ctl"], directory, environment))
        vsctl("add-br", "bench", "--", "set", "bridge", "bench", "datapath_type=netdev",
              *(word for number in range(2) for word in (
                  "--", "add-port", "bench", f"p{number}", "--", "set", "Interface", f"p{number}",
                  "type=dpdkvhostuser")))
        sockets = [run_dir / f"p{number}" for number in range(2)]
        wait_until(lambda: all(socket.exists() for socket in sockets), vswitchd.log)
        yield stack.enter_context(running(Contender(sockets, vswitchd.pid)))


@contextlib.contextmanager
def hugepages():
    before = HUGEPAGES.read_text(encoding="ascii")
    HUGEPAGES.write_text(str(int(before) + PAGES), encoding="ascii")
    try:
        yield
    finally:
        HUGEPAGES.write_text(before, encoding="ascii")


@contextlib.contextmanager
def running(contender):
    """On the way out it runs again, so that it can be stopped as always."""
    try:
        yield contender
    finally:
        contender.signal(signal.SIGCONT)


def main():
    with hugepages(), our_switch() as ours, testpmd() as io, ovs() as bridge:
        header("vdpa-switch: packets per second between two ports")
        for run in RUNS:
            figures = {contender: [] for contender in (ours, io, bridge)}
            for _ in range(ROUNDS):
                for contender, values in figures.items():
                    values.append(contender.measure(*run))
            mpps = {contender: Figures(values, "Mpps", 2) for contender, values in figures.items()}
            size, ways, flows, rings = run
            what = f"{size} B, {ways} way{'s' if ways == 'both' else ''}, {flows} flow{'s' if flows > 1 else ''}, {rings}"
            reached = size == 64 and rings == "split"
            row(f"{what}: testpmd io", mpps[ours], mpps[io], ">= 0.7" if reached else "")
            row(f"{what}: OVS-DPDK", mpps[ours], mpps[bridge], ">= 2.5" if reached else "")


main()
finish()
