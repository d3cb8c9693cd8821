"""vdpa-datapath with the kernel's vDPA devices, for machines that have some: ../vm/inside."""

import contextlib
import json
import pathlib

import pytest

import rpc
from datapath import Datapath, network_namespace, owner
from hardware import IGB_PF, PCI, run
from kubelet import PodResources
from support import wait_until

SIMULATOR_MAC = "02:00:00:00:00:51"


def offer(*devices, name="vdpa.io/nic"):
    return rpc.datapath.Resource(name=name, socket=rpc.datapath.SocketOptions(mode=0o666), devices=devices)


def kernel(address, vdpa, attach="vhost-user", provision=False, driver="vp-vdpa"):
    return rpc.datapath.Device(id=address, attach=attach, numa_node=1, kernel=rpc.datapath.KernelDevice(
        vdpa=vdpa, management_device=f"pci/{address}", provision=provision, pci_address=address, pci_driver=driver))


def device_json(datapath, device):
    return json.loads(datapath.path(device, "device.json").read_text())


@contextlib.contextmanager
def attached_netdev(datapath, first, **request):
    with network_namespace() as netns:
        answer = datapath.stub.Attach(rpc.datapath.AttachRequest(
            owner=owner(netns=netns), device_id=first, **request), timeout=30).attachment
        yield netns, answer


def netdevs(netns=None):
    prefix = ["ip", "-n", pathlib.Path(netns).name] if netns else ["ip"]
    return {link["ifname"]: link for link in json.loads(run(*prefix, "-j", "address", "show"))}


class Igb:
    """The first VF of a PF that supports VF settings; the vDPA device that is offered with it belongs to another VF."""

    def __init__(self, node):
        node.make_vfs(IGB_PF, 1)
        self.vf = node.vf(0, IGB_PF)
        self.pf = next((PCI / "devices" / IGB_PF / "net").iterdir()).name
        node.set_link(self.pf, True)   # it supports a rate limit then
        wait_until(lambda: (pathlib.Path("/sys/class/net") / self.pf / "carrier").read_text() == "1\n", "igb's link")
        self.where = f"VF 0 of {self.pf} (igb)"

    def found(self):
        """Everything that the kernel reports about the VF."""
        [link] = json.loads(run("ip", "-d", "-j", "link", "show", self.pf))
        return link["vfinfo_list"][0]

    def offered(self, vdpa="sim0"):
        return offer(kernel(self.vf, vdpa, attach="vhost-vdpa"))


def vdpa_mac(name):
    return json.loads(run("vdpa", "-j", "dev", "config", "show", name))["config"][name]["mac"]


# --- fixtures

@pytest.fixture
def datapath(directory):
    with PodResources(directory) as kubelet, Datapath(directory) as running:
        running.kubelet = kubelet
        yield running.wait_serving()


@pytest.fixture
def igb(node):
    machine = Igb(node)
    yield machine
    node.set_link(machine.pf, False)


@pytest.fixture
def simulator(node):
    node.add_vdpa("sim0", "vdpasim_net", "mac", SIMULATOR_MAC)
