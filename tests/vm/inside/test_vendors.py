"""The rules of vendors' drivers, as the test NIC has them: the attributes they get, and which of a network's and when."""

import contextlib

import pytest
import rpc
from datapath import Datapath, network_namespace, owner, refused, settings
from grpc import StatusCode
from device_plugin import DevicePlugin, write_config
from kubelet import Kubelet
from hardware import PLAIN
from kernel_devices import netdevs
from pod import Pod, exchange
from support import wait_until

ASKED, OTHER = "02:00:00:00:00:09", "02:00:00:00:00:0a"
OWN = "52:54:00:00:0a:00"   # the first function's, if the driver gives functions one
MRG_RXBUF, CTRL_VQ, MQ = 1 << 15, 1 << 17, 1 << 22


class Offer:
    """A resource of vdpa-device-plugin, served by vdpa-datapath."""

    def __init__(self, directory, kubelet, resource):
        self.datapath = Datapath(directory).__enter__()
        self.kubelet = kubelet
        self.plugin = DevicePlugin(directory, write_config(directory, resource))
        self.resource = resource
        self.plugin.__enter__()
        wait_until(self.plugin.socket.exists, self.plugin.log)

    def stop(self):
        for program in self.plugin, self.datapath:
            program.__exit__(None, None, None)

    def change(self, **keys):
        self.resource |= keys
        self.plugin.configure(self.resource)

    def healthy(self):
        found = self.kubelet.plugins.get("vdpa.io/nic")
        return sorted(i for i, health in found.devices.items() if health == "Healthy") if found else []

    def wait_healthy(self, *devices):
        wait_until(lambda: self.healthy() == sorted(devices),
                   lambda: (self.healthy(), self.plugin.log(), self.datapath.log()), 60)
        return self

    @contextlib.contextmanager
    def attached(self, device, **asked):
        """Attaches it to a pod of its own; yields the attachment and the path of the pod's network namespace."""
        with network_namespace() as netns:
            pod = owner("c-" + device.replace(":", "-"), netns=netns)
            live = self.datapath.attach(pod, device, settings(**asked))
            yield live, netns
            assert self.datapath.check(pod, device, settings(**asked)) == []
            assert self.datapath.detach(pod)

    def refuses(self, device, *words, **asked):
        with network_namespace() as netns, refused(StatusCode.INVALID_ARGUMENT, device, *words):
            self.datapath.attach(owner("c-" + device.replace(":", "-"), netns=netns), device, settings(**asked))
        assert self.datapath.attachment(device) is None


@pytest.fixture
def offer(node, vendor_nic, directory):
    """Call it with the resource's keys."""
    kubelet = Kubelet(directory).start()
    started = []

    def start(*addresses, **keys):
        started.append(Offer(directory, kubelet, {"name": "nic", "provision": "vdpa",
                                                  "devices": [{"pciAddresses": list(addresses)}]} | keys))
        return started[-1]
    yield start
    for one in started:
        one.stop()
    kubelet.stop()


@pytest.fixture
def made(node):
    """Waits until the vDPA device is in this state, which takes a moment after an attachment's end."""
    def wait(name, **expected):
        def as_expected():
            config = node.vdpa_config(name)
            return config is not None and node.character_device(name) and \
                expected == {key: config.get(key) for key in expected}
        wait_until(as_expected, lambda: f"{expected}: {node.vdpa_config(name)}", 30)
    return wait


def test_mlx5_gives_what_it_is_asked_for(node, vendor_nic, offer, made):
    """Its functions have no MAC: a device without one shows none, even if one is set afterwards."""
    first, second = vendor_nic.bind_vfs("mlx5_core", "mlx5_core")
    offered = offer(first, second).wait_healthy(first, second)
    names = [f"vdpa-{address}" for address in (first, second)]
    own = {"mac": None, "mtu": 1500, "max_vq_pairs": 4}
    for name in names:
        made(name, **own)
        assert node.vdpa_features(name) & (MRG_RXBUF | CTRL_VQ | MQ) == MRG_RXBUF | CTRL_VQ | MQ
    with offered.attached(first) as (live, _):
        assert node.vdpa_config(names[0])["mac"] == live.settings.mac, "a pod has one, requested or not"
        assert live.queue_pairs == 4
    made(names[0], **own)
    with offered.attached(first, mac=ASKED, mtu=9000) as (live, _), offered.attached(second, mac=OTHER) as (other, _):
        made(names[0], mac=ASKED, mtu=9000, max_vq_pairs=4)
        made(names[1], mac=OTHER, mtu=1500)
        assert (live.settings.mac, live.settings.mtu, other.settings.mac) == (ASKED, 9000, OTHER)
        with Pod(offered.datapath.socket(first), ASKED) as one, Pod(offered.datapath.socket(second), OTHER) as two:
            exchange(one, two, b"between remade devices")
    for name in names:
        made(name, **own)


def test_mlx5_as_a_netdev(node, vendor_nic, offer):
    [first] = vendor_nic.bind_vfs("mlx5_core")
    offered = offer(first, attach="virtio-vdpa").wait_healthy(first)
    with offered.attached(first, mac=ASKED, mtu=9000) as (live, netns):
        link = netdevs(netns)["net1"]
        assert (link["address"], link["mtu"]) == (ASKED, 9000) == (live.settings.mac, live.settings.mtu)
        assert node.vdpa_config(f"vdpa-{first}")["mac"] == ASKED
    wait_until(lambda: node.vdpa_config(f"vdpa-{first}") and "mac" not in node.vdpa_config(f"vdpa-{first}"), "its own")
    wait_until(lambda: node.vdpa_config(f"vdpa-{first}")["mtu"] == 1500, lambda: node.vdpa_config(f"vdpa-{first}"))


def test_a_character_device_that_was_handed_out_is_not_made_anew(node, vendor_nic, offer, made):
    [first] = vendor_nic.bind_vfs("mlx5_core")
    offered = offer(first, attach="vhost-vdpa").wait_healthy(first)
    [handed] = offered.kubelet.wait_plugin().allocate(first).devices
    assert (handed.host_path, handed.permissions) == (node.character_device(f"vdpa-{first}"), "rw")
    for asked in {"mac": ASKED}, {"mtu": 9000}:
        [(key, value)] = asked.items()
        offered.refuses(first, f"{key} {value} was requested", "attach: vhost-vdpa", f"remove {key}", **asked)
    with offered.attached(first) as (live, _):
        assert live.state == "direct"
    made(f"vdpa-{first}", mac=None, mtu=1500)


def test_mlx5_with_a_device_that_an_operator_made(node, vendor_nic, offer, made):
    """The kernel accepts a MAC that is set, but without VIRTIO_NET_F_MAC it is not visible."""
    [first] = vendor_nic.bind_vfs("mlx5_core")
    node.add_vdpa("vdpa0", f"pci/{first}")
    offered = offer(first, provision="none").wait_healthy(first)
    with offered.attached(first):
        pass   # no network requested a MAC
    offered.refuses(first, ASKED, "vdpa0 shows no MAC", "provision: vdpa", mac=ASKED)
    node.delete_vdpa("vdpa0")
    node.add_vdpa("vdpa0", f"pci/{first}", "mac", OTHER)
    offered.wait_healthy(first)
    offered.refuses(first, ASKED, f"vdpa0 has {OTHER}", "takes it when the device is made", mac=ASKED)
    made("vdpa0", mac=OTHER)   # nor set and restored: the NIC's switch would not know it
    with offered.attached(first, mac=OTHER) as (live, _):
        assert live.settings.mac == OTHER
    with offered.attached(first) as (live, _):
        assert (live.settings.mac, node.vdpa_config("vdpa0")["mac"]) == (OTHER, OTHER)


def test_a_driver_that_takes_a_mac_only_when_the_device_is_made(vendor_nic, offer, made):
    [first] = vendor_nic.bind_vfs("pds_core")
    offered = offer(first, vdpa={"queuePairs": 2}).wait_healthy(first)
    name = f"vdpa-pds_core.vDPA.{int(first[-1])}"
    made(name, mac=OWN, max_vq_pairs=2)
    with offered.attached(first, mac=ASKED) as (live, _):
        assert live.settings.mac == ASKED
        made(name, mac=ASKED, max_vq_pairs=2)
    made(name, mac=OWN, max_vq_pairs=2)
    offered.refuses(first, "mtu 9000", mtu=9000)
    made(name, mac=OWN, max_vq_pairs=2)


def test_the_netdev_of_a_vf_whose_vdpa_device_is_below_an_auxiliary_device(vendor_nic, offer):
    [first] = vendor_nic.bind_vfs("pds_core")
    offered = offer(first, attach="virtio-vdpa").wait_healthy(first)
    with offered.attached(first, mac=ASKED) as (live, netns):
        assert netdevs(netns)["net1"]["address"] == live.settings.mac == ASKED


def test_a_driver_that_takes_no_mac(vendor_nic, offer, made):
    [first] = vendor_nic.bind_vfs("ifcvf")
    offered = offer(first).wait_healthy(first)
    made(f"vdpa-{first}", mac=OWN, max_vq_pairs=4)
    offered.refuses(first, f"mac {ASKED} was requested", f"the device has {OWN}", mac=ASKED)
    with offered.attached(first) as (live, _):
        assert live.settings.mac == OWN
    offered.change(vdpa={"mtu": 1400})
    wait_until(lambda: "vdpa.mtu is not supported" in offered.plugin.explain(first), lambda: offered.plugin.explain(first))


def test_attributes_of_the_resource(node, vendor_nic, offer, made):
    first, second = vendor_nic.bind_vfs("mlx5_core", "mlx5_core")
    offered = offer(first, vdpa={"queuePairs": 2, "mtu": 1400, "features": ["MAC", "MTU", "MQ", "CTRL_VQ"]}).wait_healthy(first)
    name = f"vdpa-{first}"
    made(name, mac=None, mtu=1400, max_vq_pairs=2)
    assert node.vdpa_features(name) & (MRG_RXBUF | MQ) == MQ
    with offered.attached(first, mac=ASKED):
        made(name, mac=ASKED, mtu=1400, max_vq_pairs=2)
        the_pods = node.identity(name)
        offered.change(vdpa={"queuePairs": 3}, devices=[{"pciAddresses": [first, second]}])
        made(f"vdpa-{second}", max_vq_pairs=3)   # the change has arrived; devices are made in the order of their names
        wait_until(lambda: "to be made with 3 queue pairs, all features, but it has 2 queue pairs, no MRG_RXBUF, " in
                   offered.plugin.explain(first), lambda: offered.plugin.explain(first))
        assert node.identity(name) == the_pods, "remade while its pod ran"
    made(name, mac=None, max_vq_pairs=3)
    assert node.vdpa_features(name) & MRG_RXBUF
    for attributes, words in (({"queuePairs": 5}, "makes at most 4"),
                              ({"features": ["CSUM"]}, "it supports MTU, MAC, MRG_RXBUF")):
        offered.change(vdpa=attributes)
        wait_until(lambda: words in offered.plugin.explain(first), lambda: offered.plugin.explain(first))


def test_selectors_of_what_the_kernel_tells(node, vendor_nic, offer):
    """Queue pairs and management devices are not in sysfs."""
    first, second = vendor_nic.bind_vfs("mlx5_core", "mlx5_core")
    for name, address, pairs in ("vdpa0", first, 4), ("vdpa1", second, 2):
        node.add_vdpa(name, f"pci/{address}", "mac", ASKED, "max_vqp", str(pairs))
    offered = offer(provision="none", devices=[{"vendors": ["15b3"]}]).wait_healthy(first, second)
    offered.change(devices=[{"vendors": ["15b3"], "minQueuePairs": 3}])
    offered.wait_healthy(first)
    assert "has 2 queue pairs, needs 3" in offered.plugin.explain(second)
    offered.change(devices=[{"managementDevices": [f"pci/{second}"]}])
    offered.wait_healthy(second)


def test_mlx5_whose_functions_have_a_mac(node, vendor_nic, offer, made):
    """Another one takes effect only when the device is made: one that is set leaves the old one in the NIC's switch."""
    [first] = vendor_nic.set(vport_mac="Y").bind_vfs("mlx5_core")
    offered = offer(first).wait_healthy(first)
    name = f"vdpa-{first}"
    made(name, mac=OWN, max_vq_pairs=4)
    assert node.vdpa_features(name) & (MRG_RXBUF | MQ) == MRG_RXBUF | MQ
    own = node.identity(name)
    with offered.attached(first) as (live, _):
        assert (live.settings.mac, node.vdpa_config(name)["mac"], node.identity(name)) == (OWN, OWN, own)
    assert node.identity(name) == own, "remade for a pod that requested nothing"
    with offered.attached(first, mac=ASKED) as (live, _):
        assert (live.settings.mac, node.vdpa_config(name)["mac"]) == (ASKED, ASKED)
        assert node.identity(name) != own, "set, and not made with it"
    made(name, mac=OWN, max_vq_pairs=4)


def test_octep_is_served_as_a_netdev_only(vendor_nic, offer):
    [first] = vendor_nic.bind_vfs("octep_vdpa")
    offered = offer(first)
    wait_until(lambda: "requires NOTIFICATION_DATA and RING_PACKED" in offered.plugin.explain(first),
               lambda: offered.plugin.explain(first))
    assert offered.healthy() == []
    offered.change(attach="virtio-vdpa")
    offered.wait_healthy(first)
    with offered.attached(first) as (_, netns):
        assert netdevs(netns)["net1"]["mtu"] == 1500


def test_scalable_functions_of_mlx5(vendor_nic, offer, made):
    functions = vendor_nic.bind_scalable_functions()
    names = [f"vdpa-{function}" for function in functions]
    offered = offer(devices=[{"managementDevices": [f"auxiliary/{function}" for function in functions], "minQueuePairs": 4}])
    offered.wait_healthy(*names)
    assert "management device is none, needs auxiliary/" in offered.plugin.explain(PLAIN), "their function itself"
    with offered.attached(names[0], mac=ASKED), offered.attached(names[1]) as (other, _):
        made(names[0], mac=ASKED, max_vq_pairs=4)
        made(names[1], mac=other.settings.mac, max_vq_pairs=4)
        with Pod(offered.datapath.socket(names[0])) as one, Pod(offered.datapath.socket(names[1])) as two:
            exchange(one, two, b"between scalable functions")
            with rpc.channel(offered.datapath.run_dir / "observe/vdpa-datapath.sock") as channel:
                observed = rpc.observe.ObserveStub(channel).Read(rpc.observe.ReadRequest(), timeout=10).datapath
    sent = {queue.device: queue.events["packets"] for queue in observed.queue_events if queue.queue == 1}
    assert set(sent) == set(names) and all(sent.values()), "the driver's counters of each device's first transmit queue"
    for name in names:
        made(name, mac=None, max_vq_pairs=4)
