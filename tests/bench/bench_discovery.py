"""vdpa-device-plugin with hardware, on a generated sysfs: how fast it scans, registers and follows 8 to 1,024 VFs."""

import json
import subprocess

from measure import Figures, blocks, finish, header, node_directories, private_kib, resident_kib, row

import datapath
from device_plugin import command
from plugin import FLOOR, SRIOV, MeasuredPlugin, on_node
from support import BUILD
from sysfs import Sysfs, inject

TIMER = BUILD / "tests/bench/snapshot-timer"
ROUNDS = blocks(9)
CALLS = 12000   # the first tenth is not counted: it allocates every device once, and so writes its device-info file
CHANGES = 20


def changes(plugin, sysfs, vfs):
    """The time from the kernel's event to the kubelet's new list, for a VF's vDPA device that is removed and added again."""
    took = []
    for _ in range(CHANGES):
        for action in ("remove", "add"):
            if action == "remove":
                sysfs.remove_vdpa(0, 0, "vdpa0")
            else:
                sysfs.add_vdpa(0, 0, "vdpa0", 0)
            event = inject(plugin.pid, "vdpa", "/devices/x/vdpa0", action)
            expected = vfs - 1 if action == "remove" else vfs
            while (seen := plugin.next_list())["devices"] != expected:
                pass
            took.append(seen["at_ms"] - event * 1000)
    return took


class Node:
    """A generated node with `vfs` VFs on `pfs` PFs."""

    def __init__(self, directory, pfs, vfs):
        self.directory, self.vfs = directory, vfs
        self.what = f"{vfs} VFs on {pfs} PFs"
        self.sysfs = Sysfs(directory / f"sys-{pfs}-{vfs}", pfs, vfs // pfs)
        self._add_what_the_peer_reads(pfs)
        self.config = directory / "config.yaml"
        self.config.write_text("resources:\n  - name: nic\n    devices: [{vendors: [1af4]}]\n")

    def _add_what_the_peer_reads(self, pfs):
        """Files that every node has and our plugin does not read."""
        for device in (self.sysfs.root / "bus/pci/devices").iterdir():
            (device / "modalias").write_text("pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00\n")
            driver = (device / "uevent").read_text().split("\n")[0].removeprefix("DRIVER=")
            (device / "driver").symlink_to(f"/sys/bus/pci/drivers/{driver}")
        for n in range(pfs):
            for name in ("sriov_totalvfs", "sriov_numvfs"):
                (self.sysfs.path(self.sysfs.pf(n)) / name).write_text(f"{self.vfs // pfs}\n")

    def start(self, *options, calls=0, run_dir=None):
        return MeasuredPlugin(self.directory / "device-plugins", self.vfs, calls,
                              command(self.directory, self.config, "--sysfs", self.sysfs.root, run_dir=run_dir,
                                      log_level="error"), *options)

    def rows(self, look_target="", registered_target=""):
        looks = json.loads(subprocess.check_output([TIMER, "--sysfs", self.sysfs.root, "--rounds", "50"]))
        row(f"one scan of {self.what}", Figures(looks, "ms"), target=look_target)
        runs, private, resident = [], [], []
        for _ in range(ROUNDS):
            with self.start("--any-health") as plugin:
                runs.append(plugin.result)
                private.append(private_kib(plugin.pid) / 1024)
                resident.append(resident_kib(plugin.pid) / 1024)
        row(f"exec to registered, {self.what}", Figures([r["registered_ms"] for r in runs], "ms"), target=registered_target)
        row(f"exec to all listed, {self.what}", Figures([r["listed_ms"] for r in runs], "ms"))
        with self.start("--any-health") as plugin:
            row(f"event to new list, {self.what}", Figures(changes(plugin, self.sysfs, self.vfs), "ms"), target="< 100 ms")
        row(f"private memory, {self.what}", Figures(private, "MiB"))
        row(f"resident memory, {self.what}", Figures(resident, "MiB"))


def allocate(node, directory):
    """With vdpa-datapath, because Allocate refuses a device that no process would serve."""
    devices = directory / "dev"
    devices.mkdir()
    for n in range(node.vfs):
        (devices / f"vhost-vdpa-{n}").touch()
    pairs = {"ours": [], "floor": []}
    with datapath.Datapath(directory, "--sysfs", node.sysfs.root, "--dev", devices, log_level="info") as daemon:
        daemon.wait_serving()
        for _ in range(ROUNDS):
            with node.start(calls=CALLS, run_dir=daemon.run_dir) as plugin:
                pairs["ours"].append(plugin.result)
            with MeasuredPlugin(directory / "floor", node.vfs, CALLS, [FLOOR, directory / "floor", node.vfs]) as plugin:
                pairs["floor"].append(plugin.result)
    for percentile in ("p50", "p99"):
        key = f"allocate_{percentile}_us"
        row(f"Allocate {percentile} with {node.what}, beside the floor",
            *(Figures([r[key] for r in pairs[kind]], "us") for kind in ("ours", "floor")), "<= 1.5")


def beside_sriov(node):
    """sriov-network-device-plugin on the same tree, in the same kind of namespace. All devices that it lists are healthy."""
    directory = node.directory
    (directory / "sriov.json").write_text(json.dumps({"resourceList": [
        {"resourceName": "nic", "selectors": [{"vendors": ["1af4"]}]}]}))
    found = {"ours": [], "peer": []}
    for _ in range(ROUNDS):
        for kind, folder, plugin in (
                ("ours", "device-plugins", command(directory, node.config, log_level="error")),
                ("peer", "sriov", [SRIOV, "--config-file", directory / "sriov.json", "--resource-prefix", "peer.example"])):
            kubelet = directory / folder
            kubelet.mkdir(exist_ok=True)
            with MeasuredPlugin(kubelet, node.vfs, 0, on_node(kubelet, node.sysfs.root, plugin), "--any-health") as running:
                found[kind].append({**running.result, "private": private_kib(running.pid) / 1024})
    for what, key, unit in (("exec to registered", "registered_ms", "ms"), ("exec to all listed", "listed_ms", "ms"),
                            ("private memory", "private", "MiB")):
        row(f"{what}, {node.what}: sriov", *(Figures([r[key] for r in found[kind]], unit) for kind in found))


def main():
    with node_directories() as (_, directory):
        header("discovery: a generated sysfs in memory")
        for vfs in (8, 64, 256):
            Node(directory, 8, vfs).rows()
        Node(directory, 64, 1024).rows()
        full = Node(directory, 8, 1024)
        full.rows("< 20 ms", "<= 50 ms")
        allocate(full, directory)
        if SRIOV:
            beside_sriov(full)
        else:
            print("beside sriov-network-device-plugin: not measured, SRIOV_DEVICE_PLUGIN names no program")


main()
finish()
