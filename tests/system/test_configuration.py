"""Every key of the configuration, from the YAML to its receiver: vdpa-device-plugin reads it, and its message to the datapath
or the kubelet changes with the key, and has the default without it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import grpc
import pytest
import yaml

from configuration import keys_of_the_parser
from device_plugin import DevicePlugin, write_config
from documents import block
from fake_datapath import FakeDatapath
from kubelet import Kubelet
from rpc import deviceplugin
from support import wait_until
from sysfs import Sysfs


# Two VFs each of eth0 and eth2, on NUMA node 0, with vDPA devices of vp-vdpa; two of eth1, on node 1 and without a link, under
# mlx5_core, the second without a vDPA device.
A0, A1, B0, B1, C0, C1 = (Sysfs.vf(n, i) for n in range(3) for i in range(2))
DEVICES = {"name": "nic", "devices": "[{vendors: ['1af4', '15b3']}]"}
PROVISIONED = {**DEVICES, "provision": "vdpa"}
PORTS = {"name": "nic", "backend": "software", "software": "{ports: 2}"}


class Scene:
    """The plugin between a kubelet and a datapath that record what they receive."""

    def __init__(self, directory):
        self.directory = directory
        self.sysfs = sysfs = Sysfs(directory / "sys", pfs=3, vfs=2)
        for vf in B0, B1:
            sysfs.set_driver(vf, "mlx5_core", "15B3:101E", "15B3:0058")
        sysfs.remove_vdpa(1, 1, "vdpa3")
        sysfs.set_link(1, "down")
        self.config = write_config(directory)
        self.kubelet, self.datapath = Kubelet(directory).start(), FakeDatapath(directory).start()

    def start(self):
        return DevicePlugin(self.directory, self.config, "--sysfs", self.sysfs.root, "--node-name", "worker-1",
                            own_network=True)

    def stop(self):
        self.kubelet.stop()
        self.datapath.stop()

    def configure(self, keys):
        self.config.write_text("resources:\n-\n" + "".join(f"  {key}: {value}\n" for key, value in keys.items()))

    @property
    def resource(self):
        """The resource as the datapath received it."""
        return self.datapath.sets[-1].resources[0]

    def device(self, device):
        return next(d for d in self.resource.devices if d.id == device)

    @property
    def ids(self):
        return [d.id for d in self.resource.devices]

    @property
    def resources(self):
        """The devices in the kubelet's list."""
        return {name for name, plugin in self.kubelet.plugins.items() if not plugin.ended.is_set()}

    @property
    def plugin(self):
        return self.kubelet.wait_plugin()

    @property
    def topology(self):
        """Each device's NUMA nodes in the kubelet's list."""
        stream = self.plugin.stub.ListAndWatch(deviceplugin.Empty(), timeout=5)
        nodes = {d.ID: [n.ID for n in d.topology.nodes] for d in next(stream).devices}
        stream.cancel()
        return nodes


@dataclasses.dataclass(frozen=True)
class Row:
    key: str
    base: dict                       # the resource without the key
    keys: dict                       # the difference with it
    seen: Callable[[Scene], Any]
    default: Any
    expected: Any

    def __str__(self):
        return self.key.removeprefix("resources.")

    def value(self, keys):
        """The resource's value at the key; None: none."""
        value = yaml.safe_load("resources: [{" + ", ".join(f"{k}: {v}" for k, v in keys.items()) + "}]")
        for name in self.key.split("."):
            while isinstance(value, list):
                value = value[0]
            value = value.get(name) if value else None
        return value


def selector(key, value, expected):
    return Row(f"resources.devices.{key}", DEVICES, {"devices": f"[{{{key}: {value}}}]"}, lambda s: s.ids,
               [A0, A1, B0, B1, C0, C1], expected)


def attribute(key, value, name, expected):
    """The attributes for `vdpa dev add`. By default mlx5_core devices get all queue pairs and features, which is 0."""
    return Row(f"resources.vdpa.{key}", PROVISIONED, {"vdpa": f"{{{key}: {value}}}"},
               lambda s: getattr(s.device(B1).kernel.attributes, name), 0, expected)


def of_socket(key, value, name, default, expected):
    return Row(f"resources.socket.{key}", PORTS, {"socket": f"{{{key}: {value}}}"},
               lambda s: getattr(s.resource.socket, name), default, expected)


def of_switch(key, value, name, default, expected):
    return Row(f"resources.software.{key}", PORTS, {"software": f"{{ports: 2, {key.split('.')[0]}: {value}}}"},
               lambda s: getattr(s.resource.software, name), default, expected)


LABEL = "system_u:object_r:vdpa_t:s0:c1,c2"
ROWS = [
    Row("resources.name", PORTS, {"name": "lan"}, lambda s: (s.resource.name, s.ids, s.resources),
        ("vdpa.io/nic", ["nic-0", "nic-1"], {"vdpa.io/nic"}), ("vdpa.io/lan", ["lan-0", "lan-1"], {"vdpa.io/lan"})),
    Row("resources.prefix", PORTS, {"prefix": "dev.example"}, lambda s: (s.resource.name, s.resources),
        ("vdpa.io/nic", {"vdpa.io/nic"}), ("dev.example/nic", {"dev.example/nic"})),
    Row("resources.nodes", PORTS, {"nodes": "['worker-2*', edge-1]"}, lambda s: s.resources, {"vdpa.io/nic"}, set()),
    *(Row("resources.backend", DEVICES, {"backend": backend},
          lambda s: {d.id: d.WhichOneof("behind") for d in s.resource.devices},
          {A0: "kernel", A1: "kernel", B0: "kernel", B1: "dpdk", C0: "kernel", C1: "kernel"}, expected)
      for backend, expected in (("kernel", dict.fromkeys((A0, A1, B0, C0, C1), "kernel")), ("dpdk", {B0: "dpdk", B1: "dpdk"}))),
    *(Row("resources.attach", PROVISIONED, {"attach": way}, lambda s: s.device(B1).attach, "vhost-user", way)
      for way in ("vhost-vdpa", "virtio-vdpa")),
    Row("resources.attach", DEVICES, {"attach": "vhost-vdpa"}, lambda s: [d.host_path for d in s.plugin.allocate(A1).devices],
        [], ["/dev/vhost-vdpa-1"]),
    selector("vendors", "['15b3']", [B0, B1]),
    selector("devices", "['101e']", [B0, B1]),
    selector("drivers", "[mlx5_core]", [B0, B1]),
    selector("pciAddresses", f"['{A1}', '{C0}']", [A1, C0]),
    selector("pfNames", "['eth0#0', 'eth2#1']", [A0, C1]),
    selector("rootDevices", f"['{Sysfs.pf(1)}#0']", [B0]),
    selector("numaNodes", "[1]", [B0, B1]),
    # Without the kernel's netlink each vDPA device has one pair and no management device; tests/vm/inside has both.
    selector("minQueuePairs", "2", [B1]),
    selector("managementDevices", f"['pci/{A0}']", []),
    Row("resources.provision", DEVICES, {"provision": "vdpa"},
        lambda s: {d.id: d.kernel.pci_driver for d in s.resource.devices if d.kernel.provision}, {}, {B1: "mlx5_core"}),
    attribute("queuePairs", "3", "queue_pairs", 3),
    attribute("mtu", "1400", "mtu", 1400),
    attribute("features", "[MAC, MTU, MQ, CTRL_VQ]", "features", 1 << 5 | 1 << 3 | 1 << 22 | 1 << 17),
    Row("resources.topology", DEVICES, {"topology": "false"}, lambda s: s.topology,
        {A0: [0], A1: [0], B0: [1], B1: [1], C0: [0], C1: [0]}, {i: [] for i in (A0, A1, B0, B1, C0, C1)}),
    Row("resources.linkHealth", DEVICES, {"linkHealth": "false"},
        lambda s: {i for i, health in s.plugin.devices.items() if health == "Healthy"}, {A0, A1, C0, C1},
        {A0, A1, B0, B1, C0, C1}),
    Row("resources.allocation", DEVICES, {"allocation": "pack"}, lambda s: s.plugin.prefer([A0, A1, C0, C1], size=2),
        [A0, C0], [A0, A1]),
    Row("resources.dpdk.devargs", DEVICES, {"dpdk": "{devargs: 'sw-live-migration=1'}"}, lambda s: s.device(B1).dpdk.devargs,
        "", "sw-live-migration=1"),
    of_socket("uid", "107", "uid", 0, 107),
    of_socket("gid", "108", "gid", 0, 108),
    of_socket("mode", '"0620"', "mode", 0o666, 0o620),
    of_socket("selinuxLabel", f'"{LABEL}"', "selinux_label", "", LABEL),
    Row("resources.software.ports", PORTS, {"software": "{ports: 3}"}, lambda s: (s.ids, set(s.plugin.devices)),
        (["nic-0", "nic-1"], {"nic-0", "nic-1"}), (["nic-0", "nic-1", "nic-2"], {"nic-0", "nic-1", "nic-2"})),
    of_switch("queuePairs", "3", "queue_pairs", 1, 3),
    of_switch("mtu", "9000", "mtu", 1500, 9000),
    of_switch("cores", '"0-1"', "cores", "", "0-1"),
    of_switch("uplink.netdev", "{netdev: eth7}", "uplink_netdev", "", "eth7"),
    of_switch("uplink.xdp", "{netdev: eth7, xdp: true}", "uplink_xdp", False, True),
    of_switch("uplink.pci", "{pci: '0000:03:00.0'}", "uplink_pci", "", "0000:03:00.0"),
    # Left out if they are the default, so that a datapath that lacks them is no obstacle.
    Row("resources.software.offloads", PORTS, {"software": "{ports: 2, offloads: false}"},
        lambda s: (s.resource.software.HasField("offloads"), s.resource.software.offloads), (False, False), (True, False)),
    Row("resources.software.stormLimit", PORTS, {"software": "{ports: 2, stormLimit: 0}"},
        lambda s: (s.resource.software.HasField("storm_limit"), s.resource.software.storm_limit), (False, 0), (True, 0)),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_is_told_is_the_default_and_changes_with_the_key(directory, row):
    assert row.value(row.base | row.keys) not in (None, row.value(row.base)), "this row sets its key"
    scene = Scene(directory)

    def seen():
        try:
            return row.seen(scene)
        except (IndexError, KeyError, StopIteration, grpc.RpcError) as error:   # not reported yet
            return repr(error)
    try:
        scene.configure(row.base)
        with scene.start() as plugin:
            wait_until(lambda: seen() == row.default, lambda: f"{row.default}; is {seen()}:\n{plugin.log()}")
            scene.configure(row.base | row.keys)
            wait_until(lambda: seen() == row.expected, lambda: f"{row.expected}; is {seen()}:\n{plugin.log()}", 15)
    finally:
        scene.stop()


def keys_of_the_reference(value, path=""):
    if isinstance(value, list) and isinstance(value[0], dict):
        value = value[0]
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from keys_of_the_reference(inner, f"{path}.{key}" if path else key)
    else:
        yield path


def test_every_key_has_a_row_and_stands_in_the_documents(directory):
    keys = set(keys_of_the_parser(directory))
    assert {row.key for row in ROWS} == keys
    reference = yaml.safe_load(block("deviceplugin/README.md", "configuration"))
    assert set(keys_of_the_reference(reference)) == keys
