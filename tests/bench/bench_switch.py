"""Our switch compared with dpdk-testpmd (io mode: no switching at all), OVS-DPDK and the previous release's switch.

Frames per second by size, direction and number of ports; scattered and broadcast ones; latencies; the time that an idle and a
nearly idle switch takes; several cores; TCP segments of 64 KiB between applications and TCP between virtual machines; and the
limits of the machine itself, measured in the same run. contenders.py has the switches, ring_generator/ the guests: they have a
ring driver of their own, since DPDK's takes longer for a frame than a switch does. All contenders take turns in each block. A
row tells how busy both cores were: if the guests are the limit, the ratio does not compare switches.

The guests connect to the switches' own sockets (see contenders.py), but for virtual machines, which are attached to a node as a
pod's: only workers speak all that QEMU wants.
"""

import contextlib
import json
import re
import signal
import statistics
import subprocess
import time

from contenders import CORE, PREVIOUS, TESTPMD_PORTS, agreed, our_switch, ovs, previous_switch, testpmd
from guests import CORE as GUESTS_CORE, resting
from measure import Figures, blocks, finish, header, node_directories, preferred, row, skip

import datapath
import processes
import rpc
import vdpactl
from fake_datapath import FakeDatapath
from guest import BOOT, Guest
from huge_pages import huge_pages
from neighbour import VERSION
from support import BUILD, wait_until

PAGES = 768  # of 2 MiB, for the two peers
ROUNDS = blocks(5)
SECONDS = 1
FULL = 0.9  # share of a core's time; if both are below, something else used the cores
MANY = 256  # ports

# Bytes, pattern, flows, rings, and the least ratios to testpmd and OVS.
TWO_PORTS = [
    (64, "one", 1, "split", 2.2, 3), (64, "both", 1, "split", 2.2, 3), (64, "one", 10000, "split", None, None),
    (64, "one", 1, "packed", None, None), (512, "one", 1, "split", None, None), (512, "both", 1, "split", None, None),
    (1518, "one", 1, "split", 1.9, None), (1518, "both", 1, "split", 1.9, None)]
JUMBO = [(9000, "one"), (9000, "both")]
RATES = (100, 15000, 20000, 30000)  # frames per second
TARGETS_US = {100: "<= 50 us", 20000: "<= 1.5 us"}
SEGMENT = 65536      # bytes
TRANSFER = 64 << 20  # bytes that a virtual machine sends at once
TRANSFERS = 2        # that count


def flags(rings):
    return ("packed",) if rings == "packed" else ()


def name_of(size, pattern, flows=1, rings="split"):
    return (f"{size} B, {pattern} way{'s' if pattern == 'both' else ''}, {flows} flow{'s' if flows > 1 else ''}, {rings}")


def limit(results):
    """The side that limits the rate, by the medians of the runs: the one whose core is full."""
    def share(name):
        return statistics.median(result[name] for result in results)
    guests = share("busy")
    if "switch" not in results[0]:
        return f"guests {guests:.0%} busy"
    switch = share("switch")
    name = "neither" if max(guests, switch) < FULL else "the switch" if switch > guests else "the guests"
    return f"{name} limits (switch {switch:.0%} busy, guests {guests:.0%})"


def in_turns(contenders, **options):
    """The results of all blocks, by contender."""
    results = {contender: [] for contender in contenders}
    for _ in range(ROUNDS):
        for contender, found in results.items():
            found.append(contender.measure(seconds=SECONDS, **options))
    return results


def mpps(results):
    return Figures([result["pps"] / 1e6 for result in results], "Mpps", 2)


def compare(what, results, targets):
    """A row for each peer; `targets` are the least ratios by the peers' names."""
    ours, *peers = results
    for peer in peers:
        target = targets.get(peer.name)
        row(f"{what}: {peer.name}", mpps(results[ours]), mpps(results[peer]), f">= {target}" if target else "",
            f"ours: {limit(results[ours])}; peer: {limit(results[peer])}")


def two_ports():
    """Returns the rate of ours for 64 bytes one way, in frames per second."""
    with our_switch(2) as ours, testpmd(2) as io, ovs(2) as bridge, previous_switch(2) as before:
        header("Two ports")
        contenders = (ours, io, bridge, before)
        exchange = Exchange()
        for size, pattern, flows, rings, least_io, least_ovs in TWO_PORTS:
            # What the machine can at most changes while it is measured, so that it takes turns, too.
            bounded = (pattern, flows, rings) == ("one", 1, "split")
            results = in_turns(contenders + (exchange,) * bounded, size=size, pattern=pattern, flows=flows, flags=flags(rings))
            if bounded:
                row(f"{name_of(size, pattern, flows, rings)}: the limit", mpps(results[ours]), mpps(results.pop(exchange)),
                    limit="plain loops over the same cache lines")
            compare(name_of(size, pattern, flows, rings), results, {io.name: least_io, bridge.name: least_ovs})
            if (size, pattern, flows, rings) == (64, "one", 1, "split"):
                full = statistics.median(result["pps"] for result in results[ours])
        agreed(*contenders)
        return full


def jumbo_frames():
    with our_switch(2, mtu=9000) as ours, testpmd(2, mtu=9000) as io, ovs(2, mtu=9000) as bridge, \
            previous_switch(2, mtu=9000) as before:
        header("Two ports with an MTU of 9,000")
        for size, pattern in JUMBO:
            # 0.1.0 delivers frames of this size into several buffers.
            compare(name_of(size, pattern), in_turns((ours, io, bridge, before), size=size, pattern=pattern,
                                                     flags=("mergeable",), receive=2048), {})
        agreed(ours, io, bridge, before)


def many_ports():
    with our_switch(MANY) as ours, previous_switch(MANY) as before, testpmd(16) as io:
        header("16 ports")
        for pattern in ("one", "both"):
            compare(name_of(64, pattern), in_turns((ours, io, before), size=64, pattern=pattern, guests=16),
                    {io.name: 2.5})
            compare(name_of(1518, pattern), in_turns((ours, io, before), size=1518, pattern=pattern, guests=16), {})
        for pattern in ("scattered", "broadcast"):
            compare(f"64 B, {pattern}, one to 15", in_turns((ours, before), size=64, pattern=pattern, guests=16),
                    {before.name: 2.3})
        agreed(ours, io, before)

        header("Two active ports of several that are connected")
        counts = (2, 16, 64, MANY)
        results = {(contender, count): [] for contender in (ours, before) for count in counts}
        for _ in range(ROUNDS):
            for (contender, count), found in results.items():
                found.append(contender.measure(seconds=SECONDS, size=64, pattern="one", idle=count - 2))
        for count in counts:
            row(f"64 B, one way, {count} connected: {before.name}", mpps(results[ours, count]), mpps(results[before, count]),
                limit=f"ours: {limit(results[ours, count])}")
        for count in counts[1:]:
            row(f"64 B, one way: {count} connected beside 2, ours", mpps(results[ours, count]), mpps(results[ours, 2]),
                ">= 0.85")
    with our_switch(64) as ours, ovs(64) as bridge:
        header("64 ports")
        compare("64 B, one way, 2 active", in_turns((ours, bridge), size=64, pattern="one", idle=62), {bridge.name: 5})
        compare("64 B, one way, all active", in_turns((ours, bridge), size=64, pattern="one", guests=64), {})
        agreed(ours, bridge)


class Exchange:
    """What the two cores can at most: the frames' way through memory without a switch's work."""

    def measure(self, size, seconds, **_):
        return json.loads(subprocess.run([BUILD / "tests/bench/exchange-timer", str(size), str(seconds)], check=True,
                                         capture_output=True, text=True).stdout)


def microseconds(results, what):
    return Figures([result[what] for result in results], "us")


def idle_share(contender):
    """The share of a core that it takes while all ports are connected and silent."""
    with resting(contender.sockets, guests=2, idle=MANY - 2):
        time.sleep(0.5)  # it has handled the connections
        begin, cpu = time.monotonic(), contender.cpu_seconds()
        time.sleep(SECONDS)
        return (contender.cpu_seconds() - cpu) / (time.monotonic() - begin)


def little_load(full):
    """Latencies, and the CPU time at rates that leave a core mostly idle."""
    with our_switch(MANY) as ours, previous_switch(MANY) as before:
        header("Latency from ring to ring, with idle ports beside two active ones")
        for rate in (*RATES, round(full / 2, -3)):
            for idle in (0, MANY - 2):
                results = in_turns((ours, before), size=64, pattern="one", idle=idle, rate=rate)
                what = f"{rate:,.0f} frames/s, {idle} idle ports"
                row(f"{what}: {before.name}, p50", *(microseconds(results[c], "p50_us") for c in results))
                if rate in TARGETS_US:
                    row(f"{what}: p50", microseconds(results[ours], "p50_us"), target=TARGETS_US[rate])
                row(f"{what}: {before.name}, p99", *(microseconds(results[c], "p99_us") for c in results))

        header("Share of a core's time")
        shares = {contender: [] for contender in (ours, before)}
        for _ in range(ROUNDS):
            for contender, found in shares.items():
                with contender.running():
                    found.append(idle_share(contender) * 100)
        row(f"idle, {MANY} connected", Figures(shares[ours], "%", 2), target="<= 0.5 %",
            limit=f"{before.name}: {Figures(shares[before], '%', 2)}")
        results = in_turns((ours, before), size=64, pattern="one", rate=1000)
        cpu = {contender: Figures([result["cpu"] * 100 for result in found], "%") for contender, found in results.items()}
        row("1,000 frames/s", cpu[ours], target="<= 6 %", limit=f"{before.name}: {cpu[before]}")
        row("1,000 frames/s: p50", microseconds(results[ours], "p50_us"), target="<= 25 us",
            limit=f"{before.name}: {microseconds(results[before], 'p50_us')}")


class Ports(FakeDatapath):
    """Lists the ports of a switch as attached, for vdpactl."""

    def List(self, _, __):
        return rpc.datapath.ListResponse(attachments=[rpc.datapath.Attachment(
            device_id=f"p{n}", resource="vdpa.io/nic", backend="software", owner=datapath.owner(f"c{n}")) for n in range(2)])


@contextlib.contextmanager
def capturing(directory, switch):
    """vdpactl takes the first 96 bytes of each frame of the sender; yields a list that has its last line at the end."""
    said = []
    switch.signal(signal.SIGCONT)
    with subprocess.Popen(["taskset", "-c", str(GUESTS_CORE), *vdpactl.command(
            directory, "capture", "p0", "--snaplen", "96", "--max-size", str(1 << 20), "-w", "/dev/null")],
                          stderr=subprocess.PIPE, text=True) as program:
        wait_until(lambda: switch.control.log().count("are being captured") > len(switch.captured), switch.control.log)
        switch.captured.append(said)
        yield said
        program.terminate()
        said.append(program.stderr.read().splitlines()[-1])


def dropped(switch):
    """The frames that it has dropped so far. It runs afterwards."""
    switch.signal(signal.SIGCONT)
    return sum(count for port in switch.control.call("stats")["ports"] for count in port["drops"].values())


def captured_pair(full):
    """A pair whose sender is captured, beside the same pair without. The program that captures shares the guests' core here, so
    that they offer less than the poller can: what it can is the rate by its time."""
    header("A pair of pods whose frames are captured, the first 96 bytes of each")
    with our_switch(2) as ours, node_directories() as (directory, _):
        control = directory / "run/switches/vdpa.io-nic/control.sock"
        control.parent.mkdir(parents=True)
        control.symlink_to(ours.control.path)
        listing, ours.captured = Ports(directory).start(), []
        for size, rate in ((64, round(full / 4, -3)), (64, None), (1518, None)):
            options = {"rate": rate} if rate else {}
            found, missing = {True: [], False: []}, []
            for _ in range(ROUNDS):
                found[False].append(ours.measure(seconds=SECONDS, size=size, pattern="one", **options))
                before = dropped(ours)
                with capturing(directory, ours) as said:
                    found[True].append(ours.measure(seconds=SECONDS, size=size, pattern="one", **options))
                missing.append((dropped(ours) - before, int(re.search(r"(\d+) dropped by", said[-1])[1])))

            def figures(unit, digits, figure, found=found):
                return [Figures([figure(result) for result in found[how]], unit, digits) for how in (True, False)]
            if rate:
                captured, usual = figures("M/s", 2, lambda result: result["received"] / result["seconds"] / 1e6)
                row(f"{size} B, {rate:,.0f} frames/s: captured beside not", captured, usual, ">= 0.95", limit=said[-1])
                for who, values in zip(("the switch", "the capture"), zip(*missing)):
                    row(f"{size} B, {rate:,.0f} frames/s: dropped by {who}", Figures(values, "frames", 0), target="<= 0")
            else:
                captured, usual = figures("M/s", 2, lambda result: result["pps"] / result["cpu"] / 1e6)
                row(f"{size} B, by the poller's time: captured beside not", captured, usual, limit=said[-1])
        listing.stop()


def segments():
    """Segments of 64 KiB between two applications that agreed on TSO, beside full frames of the same switch."""
    header("TCP segments between two applications")
    with our_switch(2) as ours, previous_switch(2) as before:
        offered = ours.measure(seconds=0.1, size=64, flags=("offloads",))["features"]
        if not int(offered, 16) & (1 << 11):  # VIRTIO_NET_F_HOST_TSO4
            skip("segments of 64 KiB", "the switch offers no TSO")
            return
        figures = {"segments": [], "frames": [], "before": []}
        for _ in range(ROUNDS):
            for what, contender, options in (("segments", ours, {"size": SEGMENT - 4, "flags": ("offloads",)}),
                                             ("frames", ours, {"size": 1518}), ("before", before, {"size": 1518})):
                result = contender.measure(seconds=SECONDS, **options)
                figures[what].append(result["received_bytes"] * 8 / result["seconds"] / 1e9)
        made = {what: Figures(values, "Gbit/s") for what, values in figures.items()}
        row("segments of 64 KiB: frames of 1,518 B, ours", made["segments"], made["frames"])
        row(f"segments of 64 KiB: frames of 1,518 B, {before.name}", made["segments"], made["before"])


# The sender's transfers begin once the receiver listens; both print what they have done.
RECEIVE = """ip address add 192.0.2.1/24 dev eth0
echo listening
while true; do nc -l -p 5001 > /dev/null; done"""
SEND = f"""ip address add 192.0.2.2/24 dev eth0
echo connecting
while true; do dd if=/dev/zero bs=65536 count={TRANSFER >> 16} 2>/dev/null | nc 192.0.2.1 5001 && echo sent || sleep 1; done"""


def transfer(build):
    """CPU seconds of the switch for each GiB of TCP from one virtual machine to another."""
    with contextlib.ExitStack() as stack:
        directory, run_dir = stack.enter_context(node_directories())
        daemon = stack.enter_context(datapath.Datapath(
            directory, run_dir=run_dir, log_level="info", program=datapath.program_of(build),
            worker_dirs=datapath.worker_dirs_of(build)))
        daemon.wait_serving().offer(2, cores=str(CORE)).wait_healthy()
        guests = []
        for number, (name, work) in enumerate((("receiver", RECEIVE), ("sender", SEND))):
            mac = f"02:00:00:00:00:{number:02x}"
            daemon.attach(datapath.owner(f"c{number}"), f"nic-{number}", settings=datapath.settings(mac=mac))
            guests.append(stack.enter_context(Guest(directory, daemon.socket(f"nic-{number}"), name=name,
                                              address=mac, init=BOOT + work)))
        sender = guests[1]

        def sent():
            assert all(guest.running() for guest in guests), "\n".join(guest.log() for guest in guests)
            return sender.log().splitlines().count("sent")
        wait_until(lambda: sent() >= 1, lambda: "\n".join(guest.log() for guest in guests), 240)
        pid, first = daemon.switch_pid(), sent()
        cpu = processes.cpu_seconds(pid)
        wait_until(lambda: sent() >= first + TRANSFERS, lambda: "\n".join(guest.log() for guest in guests), 240)
        return (processes.cpu_seconds(pid) - cpu) / (TRANSFERS * TRANSFER / (1 << 30))


def virtual_machines():
    header("TCP from one virtual machine (emulated) to another")
    figures = {BUILD: [], PREVIOUS: []}
    for _ in range(min(ROUNDS, 3)):
        for build, values in figures.items():
            values.append(transfer(build))
    made = [Figures(values, "CPU s/GiB", 2) for values in figures.values()]
    row(f"the switch's time: {VERSION}", *made, "<= 0.33")


TIMED = re.compile(r"(\d) poller\(s\), +(?:(\d+) ports, +64 bytes|4 ports to one): .*\(median +([\d.]+)\)")


def several_cores():
    """Frames per second of CPU time of one and of two pollers in one process, whose rings refill themselves: with two cores,
    none would be left for guests. So the cores' other work, and guests, play no part."""
    header("Several pollers, self-refilling rings: M frames per second of each core's time, all cores together")
    program = BUILD / "tests/bench/forwarder-timer"
    if not program.exists():
        skip("two pollers", f"{program.name} is not built")
        return
    rates = {}
    for _ in range(ROUNDS):
        output = subprocess.run([program, "0.3"], check=True, capture_output=True, text=True).stdout
        for pollers, ports, ns in TIMED.findall(output):
            rates.setdefault((ports, int(pollers)), []).append(int(pollers) * 1e3 / float(ns))
    for what, ports, target in (("disjoint ports, 16", "16", ">= 1.8"), ("four ports to one", "", ">= 1.5")):
        row(f"{what}: two pollers beside one", *(Figures(rates[ports, pollers], "M/s") for pollers in (2, 1)), target)


def machine():
    """The limits of the hardware, without any program."""
    header("The machine")
    found = [json.loads(subprocess.run([BUILD / "tests/bench/machine-timer"], check=True, capture_output=True,
                                       text=True).stdout) for _ in range(ROUNDS)]

    def figures(name, unit, digits=1):
        return Figures([one[name] for one in found], unit, digits)
    row("a cache line to the other core", figures("line_ns", "ns", 0))
    row("64 B that the other core wrote, copied", figures("copy_64_ns", "ns"))
    row("1,518 B that the other core wrote, copied", figures("copy_1518_ns", "ns"))
    row("copied within the cache", figures("cached_gb_per_second", "GB/s"))
    row("copied in memory", figures("memory_gb_per_second", "GB/s"))


def main():
    print(f"switches on core {CORE}, the guests on core {GUESTS_CORE}, their memory on ordinary pages; the peers' own memory "
          f"on pages of 2 MiB; testpmd has at most {TESTPMD_PORTS} ports", flush=True)
    machine()
    with huge_pages(PAGES):
        full = two_ports()
        jumbo_frames()
        many_ports()
        little_load(full)
    captured_pair(full)
    segments()
    several_cores()
    virtual_machines()


with preferred():
    main()
finish()
