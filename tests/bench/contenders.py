"""The switches that `./run bench switch` compares, each with all its threads on one core: ours, the previous release's,
dpdk-testpmd (io mode: no switching at all) and OVS-DPDK.

The guests connect to the switches' own sockets, ours included: no worker is in a frame's way, and the peers have none. So
every contender can offer the same features, and the guests agree on the same ones with each (agreed()).
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess

from guests import measured, resting
from measure import node_directories

import datapath
import processes
from neighbour import VERSION
from support import BUILD, CACHE, Program, wait_until
from switch import Switch

CORE = 1
OVS = pathlib.Path("/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk")
PREVIOUS = CACHE / "releases" / VERSION
PROGRAM = "deviceplugin/datapath/switch/vdpa-switch"
# DPDK's own limit of ports, as Debian builds it (RTE_MAX_ETHPORTS).
TESTPMD_PORTS = 32


class Contender:
    """Sockets and the processes behind them, which run only while they are measured, since some poll all the time. All their
    threads, including idle ones and later ones, run on the switch's core."""

    def __init__(self, name, sockets, *pids, work=None, left=lambda: True, knows=False):
        """`work` returns how many seconds it has worked so far by its own count, and for how many packets, given the frequency
        of the processor's clock; None: it keeps no such count. `left`: whether it has noticed that all guests are gone.
        `knows`: it is configured with the guests' addresses."""
        self.knows = knows
        self.name, self.sockets, self.pids, self.work, self.left = name, sockets, pids, work, left
        self.features = set()
        for pid in pids:
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), {CORE})
        self.signal(signal.SIGSTOP)

    def signal(self, number):
        for pid in self.pids:
            os.kill(pid, number)

    @contextlib.contextmanager
    def running(self):
        self.signal(signal.SIGCONT)
        try:
            yield
            wait_until(self.left, f"{self.name} to notice that its guests are gone")
        finally:
            self.signal(signal.SIGSTOP)

    def cpu_seconds(self):
        return sum(map(processes.cpu_seconds, self.pids))

    def measure(self, guests=2, idle=0, **options):
        """The guests' result, with the busy share of the switch, if known, and its share of a core by the kernel's account."""
        def mark(hz):
            return (self.work(hz) if self.work else None), self.cpu_seconds()
        with self.running():
            result, ((work, cpu), (work_then, cpu_then)) = measured(
                self.sockets[:guests + idle], "traffic", mark, guests=guests, idle=idle, **options)
        # A bridge floods until it has learned; a switch that knows its ports' addresses never needs to.
        if self.knows and result["misdelivered"]:
            raise SystemExit(f"{self.name} delivered to others: {result}")
        self.features.add((tuple(options.get("flags", ())), result["features"]))
        result["cpu"] = (cpu_then - cpu) / result["seconds"]
        if work:
            seconds, packets = (after - before for before, after in zip(work, work_then))
            # By packet, so that the exact times of the two readings don't matter.
            result["switch"] = seconds / max(packets, 1) * result["sent"] / result["seconds"]
        return result


def agreed(*contenders):
    """Rows are comparable only if the guests agreed on the same features with everyone."""
    flags = {flag for contender in contenders for flag, _ in contender.features}
    for flag in flags:
        found = {contender.name: features for contender in contenders for of, features in contender.features if of == flag}
        assert len(set(found.values())) == 1, f"features with {flag}: {found}"


@contextlib.contextmanager
def _measured(contender):
    """At its end the processes continue, so that they can be stopped as usual."""
    try:
        yield contender
    finally:
        contender.signal(signal.SIGCONT)


@contextlib.contextmanager
def _switch(name, build, ports, mtu, counts):
    with node_directories() as (directory, run_dir):
        with Switch(run_dir, "--cores", CORE, "--mtu", mtu, program=build / PROGRAM, log_level="info") as switch:
            switch.wait_log("switch vdpa.io-nic")
            sockets = [pathlib.Path(switch.add(f"p{n}", f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}")) for n in range(ports)]
            wait_until(lambda: all(socket.exists() for socket in sockets), switch.log)

            def work(hz):
                stats = switch.call("stats")
                return stats["busy_ns"][0] / 1e9, sum(port["tx_packets"] for port in stats["ports"])

            def left():
                return not any(port["connected"] for port in switch.call("ports")["ports"])
            with _measured(Contender(name, sockets, switch.pid, work=work if counts else None, left=left,
                                     knows=True)) as made:
                made.control = switch
                yield made


def our_switch(ports, mtu=1500):
    return _switch("ours", BUILD, ports, mtu, True)


def previous_switch(ports, mtu=1500):
    return _switch(VERSION, PREVIOUS, ports, mtu, False)


@contextlib.contextmanager
def testpmd(ports, mtu=1500):
    with node_directories() as (directory, run_dir):
        sockets = [run_dir / f"{number}.sock" for number in range(ports)]
        with Program("testpmd", [
                "stdbuf", "-oL", "dpdk-testpmd", "--lcores", f"0@{CORE},1@{CORE}", "--no-pci", "--in-memory", "-m", "256",
                "--no-telemetry",
                *(word for number, socket in enumerate(sockets)
                  for word in ("--vdev", f"net_vhost{number},iface={socket},queues=1")),
                "--", "--forward-mode=io", "--auto-start", f"--total-num-mbufs={8192 + 1024 * ports}",
                f"--max-pkt-len={mtu + 18}", "--record-core-cycles", "--interactive"],
                directory, stdin=subprocess.PIPE, text=True) as program:
            wait_until(lambda: all(socket.exists() for socket in sockets), program.log)

            def work(hz):
                known = len(program.log())
                program.process.stdin.write("show fwd stats all\n")
                program.process.stdin.flush()
                found = wait_until(lambda: re.search(r"total cycles=(\d+) / total \w* ?packets=(\d+)\)",
                                                     program.log()[known:]), lambda: program.log()[-2000:])
                return int(found[1]) / hz, int(found[2])  # the cycles of passes with packets
            with _measured(Contender("testpmd io", sockets, program.pid, work=work)) as made:
                yield made


@contextlib.contextmanager
def ovs(ports, mtu=1500):
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
        stack.enter_context(Program("ovsdb", ["taskset", "-c", str(CORE), "ovsdb-server", f"--remote=p{database}",
                                              f"--unixctl={run_dir}/db.ctl", directory / "conf.db"], directory,
                                    environment))
        wait_until((run_dir / "db.sock").exists, "the database of OVS")
        vsctl("--no-wait", "init")
        mask = f"{1 << CORE:#x}"
        vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:dpdk-init=true",
              "other_config:dpdk-extra=--no-pci --no-telemetry --in-memory", "other_config:dpdk-socket-mem=512",
              f"other_config:dpdk-lcore-mask={mask}", f"other_config:pmd-cpu-mask={mask}")
        vswitchd = stack.enter_context(Program("vswitchd", [
            "nsenter", f"--net={netns}", OVS, database, f"--unixctl={run_dir}/vs.ctl"], directory, environment))
        vsctl("add-br", "bench", "--", "set", "bridge", "bench", "datapath_type=netdev",
              *(word for number in range(ports) for word in (
                  "--", "add-port", "bench", f"p{number}", "--", "set", "Interface", f"p{number}",
                  "type=dpdkvhostuser", f"mtu_request={mtu}")))
        sockets = [run_dir / f"p{number}" for number in range(ports)]
        wait_until(lambda: all(socket.exists() for socket in sockets), vswitchd.log)
        # It configures a port once more when the first guest connects, and may end that connection.
        with contextlib.suppress(SystemExit), resting(sockets, guests=ports):
            pass
        yield stack.enter_context(_measured(Contender("OVS-DPDK", sockets, vswitchd.pid, work=work)))
