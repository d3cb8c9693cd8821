"""A whole node: vdpa-device-plugin finds real devices as they come and go, and offers them; vdpa-datapath serves them."""

import os
import subprocess

import pytest
from datapath import Datapath
from device_plugin import DevicePlugin, write_config
from kubelet import Kubelet
from hardware import IGB_PF, VIRTIO_PF, run
from support import wait_until


@pytest.fixture
def scene(directory):
    kubelet = Kubelet(directory).start()
    started = []

    def start(*resources):
        datapath = Datapath(directory).__enter__()
        started.append(datapath)
        plugin = DevicePlugin(directory, write_config(directory, *resources)).__enter__()
        started.append(plugin)
        return plugin, kubelet
    yield start
    for program in reversed(started):
        program.__exit__(None, None, None)
    kubelet.stop()


def healthy(kubelet, resource="vdpa.io/nic"):
    plugin = kubelet.plugins.get(resource)
    return sorted(i for i, health in plugin.devices.items() if health == "Healthy") if plugin else []


def test_vfs_come_and_go(node, scene):
    addresses = node.add_vf_devices(2)
    plugin, kubelet = scene({"name": "nic", "devices": [{"vendors": ["1af4"]}]})
    wait_until(lambda: healthy(kubelet) == addresses, lambda: (healthy(kubelet), plugin.log()))
    node.delete_vdpa("vdpa1")
    wait_until(lambda: healthy(kubelet) == addresses[:1], lambda: (healthy(kubelet), plugin.log()))
    assert "vdpa dev add" in plugin.explain(addresses[1])
    node.unbind(addresses[0])
    wait_until(lambda: healthy(kubelet) == [], lambda: (healthy(kubelet), plugin.log()))
    node.make_vfs(VIRTIO_PF, 0)
    wait_until(lambda: node.vdpa_devices() == {}, "no vDPA devices")
    addresses = node.add_vf_devices(4)
    wait_until(lambda: healthy(kubelet) == addresses, lambda: (healthy(kubelet), plugin.log()))


def test_provisioning_makes_them(node, scene):
    node.make_vfs(VIRTIO_PF, 4, probe=True)
    addresses = [node.vf(i) for i in range(4)]
    plugin, kubelet = scene({"name": "nic", "provision": "vdpa", "devices": [{"pfNames": [f"{node.pf_netdev()}#0-2"]}]})
    wait_until(lambda: healthy(kubelet) == addresses[:3], lambda: (healthy(kubelet), plugin.log()), 60)
    assert node.driver(addresses[3]) == "virtio-pci"
    assert set(node.vdpa_devices()) == {f"vdpa-{a}" for a in addresses[:3]}
    # Changed while it runs: removed resources are undone, the rest stays.
    plugin.configure({"name": "nic", "provision": "vdpa", "devices": [{"pciAddresses": addresses[:1]}]})
    wait_until(lambda: set(node.vdpa_devices()) == {f"vdpa-{addresses[0]}"}, node.vdpa_devices, 60)
    assert healthy(kubelet) == addresses[:1]
    wait_until(lambda: node.driver(addresses[1]) == "virtio-pci", "its original driver")


def test_what_is_not_offered_says_why(node, scene):
    node.make_vfs(IGB_PF, 7)
    addresses = node.add_vf_devices(2)
    node.add_vdpa("sim0", "vdpasim_net")
    plugin, kubelet = scene({"name": "nic", "devices": [{"pfNames": [f"{node.pf_netdev()}#1"]}]},
                            {"name": "sim", "devices": [{"managementDevices": ["vdpasim_net"]}]})
    wait_until(lambda: healthy(kubelet) == addresses[1:] and healthy(kubelet, "vdpa.io/sim") == ["sim0"],
               lambda: (kubelet.plugins, plugin.log()))
    assert f"is VF 0 of PF {node.pf_netdev()}" in plugin.explain(addresses[0])
    assert "vDPA device vdpa1 under vhost_vdpa" in plugin.explain(addresses[1])
    assert "is a PF with 2 VFs" in plugin.explain(VIRTIO_PF)
    for i in range(7):
        assert "8086:10ca" in plugin.explain(node.vf(i, IGB_PF))


def test_a_pf_without_a_link(node, scene):
    addresses = node.add_vf_devices(1)
    plugin, kubelet = scene({"name": "nic", "devices": [{"vendors": ["1af4"]}]},)
    wait_until(lambda: healthy(kubelet) == addresses, lambda: (healthy(kubelet), plugin.log()))
    node.set_link(node.pf_netdev(), False)
    wait_until(lambda: healthy(kubelet) == [], plugin.log)
    assert kubelet.plugins["vdpa.io/nic"].devices == {addresses[0]: "Unhealthy"}
    assert "has no link" in plugin.explain(addresses[0])
    node.set_link(node.pf_netdev(), True)
    wait_until(lambda: healthy(kubelet) == addresses, plugin.log)


def test_a_device_of_the_host_is_never_offered(node, scene):
    node.make_vfs(VIRTIO_PF, 1, probe=True)
    address = node.vf(0)
    netdev = wait_until(lambda: next((p for p in (node_path(address)).glob("virtio*/net/*")), None), "a netdev").name
    run("ip", "address", "add", "192.0.2.7/24", "dev", netdev)
    plugin, kubelet = scene({"name": "nic", "provision": "vdpa", "devices": [{"pfNames": [node.pf_netdev()]}]})
    kubelet.wait_plugin(timeout=30)
    assert healthy(kubelet) == []
    assert f"the host uses its netdev {netdev}: the address 192.0.2.7/24" in plugin.explain(address)
    run("ip", "address", "flush", "dev", netdev)
    wait_until(lambda: healthy(kubelet) == [address], plugin.log, 60)


def test_a_hanging_dev_del_stops_nothing_else(node, scene):
    """It keeps the kernel's lock until no process has the device open: other calls to the kernel hang as long."""
    addresses = node.add_vf_devices(1)
    node.add_vdpa("sim0", "vdpasim_net")
    plugin, kubelet = scene({"name": "nic", "devices": [{"vendors": ["1af4"]}]})
    wait_until(lambda: healthy(kubelet) == addresses, lambda: (healthy(kubelet), plugin.log()))
    device = node.character_device("sim0")
    with subprocess.Popen(["sleep", "1000"], stdin=open(device, "rb+", buffering=0)) as holder:
        deleting = subprocess.Popen(["vdpa", "dev", "del", "sim0"])
        try:
            wait_until(lambda: not os.path.exists(device), "the device's node to vanish")
            node.set_link(node.pf_netdev(), False)
            wait_until(lambda: healthy(kubelet) == [], plugin.log)
            assert "has no link" in plugin.explain(addresses[0])
            node.set_link(node.pf_netdev(), True)
            wait_until(lambda: healthy(kubelet) == addresses, plugin.log)
            assert deleting.poll() is None, "it hangs all the while"
        finally:
            holder.kill()
        assert deleting.wait(20) == 0
    assert "sim0" not in node.vdpa_devices()


def node_path(address):
    import pathlib
    return pathlib.Path("/sys/bus/pci/devices") / address
