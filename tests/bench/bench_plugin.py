"""vdpa-device-plugin: from exec to registered, Allocate compared with a minimal plugin, memory of every program."""

from measure import Figures, blocks, finish, header, node_directories, private_kib, row

import datapath
from device_plugin import command
from plugin import FLOOR, MeasuredPlugin

ROUNDS = blocks(9)
CALLS = 2000


def main():
    with node_directories() as (directory, run_dir), \
            datapath.Datapath(directory, run_dir=run_dir, log_level="info") as daemon:
        measure(directory, daemon.wait_serving())


def measure(directory, daemon):
    def ours(ports, calls=0):
        config = directory / f"config-{ports}.yaml"
        config.write_text(f"resources:\n  - name: nic\n    backend: software\n    software: {{ports: {ports}}}\n")
        return MeasuredPlugin(directory / "device-plugins", ports, calls,
                              command(directory, config, run_dir=daemon.run_dir, log_level="error"))

    def floor(ports, calls=0):
        return MeasuredPlugin(directory / "floor", ports, calls, [FLOOR, directory / "floor", ports])

    header("vdpa-device-plugin")
    for ports in (1, 64, 1024):
        runs = []
        for _ in range(ROUNDS):
            with ours(ports) as plugin:
                runs.append(plugin.result)
        target = "<= 50 ms" if ports == 1024 else ""
        row(f"exec to registered, {ports} ports", Figures([r["registered_ms"] for r in runs], "ms"), target=target)
        row(f"exec to all of {ports} listed healthy", Figures([r["listed_ms"] for r in runs], "ms"))

    pairs = {"ours": [], "floor": []}
    for _ in range(ROUNDS):
        for kind, start in (("ours", ours), ("floor", floor)):
            with start(64, CALLS) as plugin:
                pairs[kind].append(plugin.result)
    for percentile, target in (("p50", "<= 1.5"), ("p99", "<= 1.5")):
        key = f"allocate_{percentile}_us"
        row(f"Allocate {percentile} of {CALLS} calls, beside the floor",
            *(Figures([r[key] for r in pairs[kind]], "us") for kind in ("ours", "floor")), target)

    memory(daemon, ours)


def memory(daemon, ours):
    """All programs of a node at once, as on a real node: memory that they share counts for none."""
    figures = {}
    for number in range(3):
        with ours(64) as plugin:
            daemon.wait_healthy("nic-0")
            if number == 0:
                daemon.attach(datapath.owner())
            for program, pid in {"vdpa-device-plugin": plugin.pid, "vdpa-datapath": daemon.pid,
                                 "vdpa-switch": daemon.switch_pid(), "vdpa-worker": daemon.worker_pid()}.items():
                figures.setdefault(program, []).append(private_kib(pid) / 1024)
    for program, values in figures.items():
        row(f"private memory of {program}", Figures(values, "MiB"),
            target="< 8 MiB" if program == "vdpa-device-plugin" else "")


main()
finish()
