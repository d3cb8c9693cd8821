"""The CNI plugin as a runtime calls it, by exec, beside Debian's bridge plugin: alone and with host-local IPAM."""

import contextlib
import json
import os
import pathlib
import subprocess
import time

from measure import Figures, header, node_directories, row

import datapath
from support import BUILD

OURS = BUILD / "cni/vdpa"
PLUGINS = pathlib.Path("/usr/lib/cni")
BLOCKS = 5
CALLS = 40  # in a block, ours and the peer's in turn


class Plugin:
    """One plugin with its configuration; `call` runs one command and says how many milliseconds it took."""

    def __init__(self, directory, name, program, netns, config):
        self.program, self.config = str(program), directory / f"{name}.json"
        self.config.write_text(json.dumps({"cniVersion": "1.0.0", "name": name, **config}))
        self.output = directory / f"{name}.out"
        self.environment = {"CNI_CONTAINERID": f"bench-{name}", "CNI_IFNAME": "net1", "CNI_NETNS": netns,
                            "CNI_PATH": f"{PLUGINS}", "PATH": os.environ["PATH"]}

    def call(self, command):
        files = [(os.POSIX_SPAWN_OPEN, 0, str(self.config), os.O_RDONLY, 0),
                 (os.POSIX_SPAWN_OPEN, 1, str(self.output), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                 (os.POSIX_SPAWN_OPEN, 2, f"{self.output}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)]
        started = time.perf_counter()
        child = os.posix_spawn(self.program, [self.program], {**self.environment, "CNI_COMMAND": command},
                               file_actions=files)
        status = os.waitpid(child, 0)[1]
        took = (time.perf_counter() - started) * 1000
        if status != 0:
            raise SystemExit(f"{self.program} {command} failed: {self.output.read_text()}")
        return took


def compare(what, ours, peer, commands, target=""):
    """The whole sequence of commands, ours and the peer's in turn; the median of each block is one figure."""
    blocks = {ours: [], peer: []}
    for _ in range(BLOCKS):
        times = {ours: [], peer: []}
        for _ in range(CALLS):
            for plugin in (ours, peer):
                times[plugin].append(sum(plugin.call(command) for command in commands))
        for plugin, values in times.items():
            blocks[plugin].append(sorted(values)[len(values) // 2])
    row(what, Figures(blocks[ours], "ms", 2), Figures(blocks[peer], "ms", 2), target)


def main():
    with contextlib.ExitStack() as stack:
        directory, run_dir = stack.enter_context(node_directories())
        netns = stack.enter_context(datapath.network_namespace())
        daemon = stack.enter_context(datapath.Datapath(directory, run_dir=run_dir, log_level="info"))
        daemon.wait_serving().offer().wait_healthy()
        bridge = f"vb{os.getpid()}"[:15]
        stack.callback(subprocess.run, ["ip", "link", "del", bridge], stderr=subprocess.DEVNULL)

        def plugins(ipam):
            config = {"ipam": {"type": "host-local", "dataDir": str(directory / "leases"),
                               "ranges": [[{"subnet": "192.0.2.0/24"}]]}} if ipam else {"ipam": {}}
            suffix = "-ipam" if ipam else ""
            ours = {"type": "vdpa", "deviceID": "nic-0", "datapathSocket": str(daemon.run_dir / "datapath.sock")}
            return (Plugin(directory, f"vdpa{suffix}", OURS, netns, {**ours, **(config if ipam else {})}),
                    Plugin(directory, f"bridge{suffix}", PLUGINS / "bridge", netns,
                           {"type": "bridge", "bridge": bridge, **config}))

        header("vdpa (CNI)")
        ours, peer = plugins(ipam=False)
        subprocess.run(["strip", "-o", directory / "stripped", OURS], check=True)
        row("size of the binary", Figures([(directory / "stripped").stat().st_size / 1e6], "MB"), target="<= 10 MB")
        compare("VERSION, beside bridge", ours, peer, ["VERSION"])
        compare("ADD+DEL, beside bridge", ours, peer, ["ADD", "DEL"], "<= 0.6")
        compare("ADD, DEL, with host-local, beside bridge", *plugins(ipam=True), ["ADD", "DEL"])


main()
