"""Settings of hardware: a VF's through its PF, which igb supports, and a vDPA device's MAC, which the simulator supports."""

import contextlib

import pytest
import rpc
from datapath import delete_namespace, network_namespace, owner, refused, settings
from grpc import StatusCode
from hardware import run
from kernel_devices import SIMULATOR_MAC, attached_netdev, device_json, kernel, netdevs, offer, vdpa_mac

VF_MAC, ASKED = "52:54:00:00:03:01", "02:00:00:00:00:09"


@contextlib.contextmanager
def crashed(datapath, resource):
    """Starts another datapath over the state that this one left when it was killed."""
    datapath.process.kill()
    datapath.process.wait()
    with datapath.restarted() as again:
        yield again.set_devices(resource)


def test_a_vf_has_what_is_asked_for_and_gets_back_what_it_had(datapath, igb, simulator):
    datapath.set_devices(igb.offered())
    before = igb.found()
    assert (before["spoofchk"], before["trust"]) == (True, False), "the test changes both"
    asked = settings(vlan=100, vlan_qos=3, spoof_check=False, trust=True, max_tx_rate=100)
    with network_namespace() as netns:
        told = datapath.attach(owner(netns=netns), igb.vf, asked).settings
        assert (told.vlan, told.vlan_qos, told.spoof_check, told.trust, told.max_tx_rate) == (100, 3, False, True, 100)
        found = igb.found()
        assert (found["vlan_list"][0]["vlan"], found["vlan_list"][0]["qos"]) == (100, 3)
        assert (found["spoofchk"], found["trust"], found["rate"]["max_tx"]) == (False, True, 100)
        assert found["address"] == before["address"], "the vDPA device has the MAC"
        assert datapath.check(owner(netns=netns), igb.vf, asked) == []
        run("ip", "link", "set", igb.pf, "vf", 0, "vlan", 5)
        [difference] = datapath.check(owner(netns=netns), igb.vf, asked)
        assert difference.startswith(f"{igb.where} has vlan 5 ") and "expected vlan 100 (vlanQoS 3" in difference
        assert datapath.detach(owner(netns=netns))
    assert igb.found() == before


def test_what_nobody_asks_for_stays_as_it_is(datapath, igb, simulator):
    datapath.set_devices(igb.offered())
    run("ip", "link", "set", igb.pf, "vf", 0, "vlan", 7, "spoofchk", "off")
    before = igb.found()
    with network_namespace() as netns:
        told = datapath.attach(owner(netns=netns), igb.vf, settings(trust=True)).settings
        assert (told.vlan, told.spoof_check, told.trust) == (7, False, True)
        assert igb.found() == before | {"trust": True}
        assert datapath.detach(owner(netns=netns))
    assert igb.found() == before


@pytest.mark.parametrize("asked, word", [
    ({"vlan": 100, "vlan_proto": "802.1ad"}, "vlan 100 (vlanQoS 0, vlanProto 802.1ad)"),
    ({"link_state": "disable"}, "link_state disable"),
    ({"min_tx_rate": 10}, "min_tx_rate 10"), ({"max_tx_rate": 5000}, "max_tx_rate 5000")])
def test_what_the_driver_cannot_do_is_refused_and_nothing_is_changed(datapath, igb, simulator, asked, word):
    datapath.set_devices(igb.offered())
    before = igb.found()
    with network_namespace() as netns:
        with refused(StatusCode.INVALID_ARGUMENT, igb.vf, igb.where, word):
            datapath.attach(owner(netns=netns), igb.vf, settings(mac=ASKED, spoof_check=False, trust=True, **asked))
        assert datapath.attachment(igb.vf) is None
    assert igb.found() == before
    assert vdpa_mac("sim0") == SIMULATOR_MAC


def test_after_a_crash_a_detach_puts_back_what_was_found_before(datapath, igb, simulator):
    datapath.set_devices(igb.offered())
    before = igb.found()
    asked = settings(mac=ASKED, vlan=100, spoof_check=False)
    with network_namespace() as netns:
        datapath.attach(owner(netns=netns), igb.vf, asked)
        with crashed(datapath, igb.offered()) as again:
            assert igb.found()["vlan_list"][0]["vlan"] == 100
            assert again.check(owner(netns=netns), igb.vf, asked) == []
            assert again.detach(owner(netns=netns))
    assert igb.found() == before
    assert vdpa_mac("sim0") == SIMULATOR_MAC


def test_the_next_owner_starts_from_what_was_found_before_the_last(datapath, igb, simulator):
    datapath.set_devices(igb.offered())
    before = igb.found()
    with network_namespace() as gone, network_namespace() as netns:
        datapath.attach(owner("old", netns=gone), igb.vf, settings(vlan=100, trust=True))
        delete_namespace(gone)
        told = datapath.attach(owner("new", netns=netns), igb.vf, settings(spoof_check=False)).settings
        assert (told.vlan, told.trust, told.spoof_check) == (0, False, False)
        wanted = igb.found()
        assert wanted == before | {"spoofchk": False}
        assert not datapath.detach(owner("old", netns=gone))
        assert igb.found() == wanted
        assert datapath.detach(owner("new", netns=netns))
    assert igb.found() == before


def test_a_mac_through_the_pf_where_the_vdpa_device_takes_none(node, datapath, igb):
    """vp-vdpa supports none."""
    node.add_vf_devices(1)
    datapath.set_devices(igb.offered("vdpa0"))
    before = igb.found()
    with network_namespace() as netns:
        told = datapath.attach(owner(netns=netns), igb.vf, settings(mac=ASKED)).settings
        assert told.mac == ASKED == igb.found()["address"] == device_json(datapath, igb.vf)["mac"]
        assert datapath.check(owner(netns=netns), igb.vf, settings(mac=ASKED)) == []
        run("ip", "link", "set", igb.pf, "vf", 0, "mac", "02:00:00:00:00:77")
        assert datapath.check(owner(netns=netns), igb.vf, settings(mac=ASKED)) == [
            f"{igb.where} has mac 02:00:00:00:00:77; expected mac {ASKED}"]
        assert datapath.detach(owner(netns=netns))
    assert igb.found() == before


@pytest.mark.parametrize("attach", ["vhost-vdpa", "vhost-user"])
def test_the_mac_of_a_vdpa_device(datapath, simulator, attach):
    datapath.set_devices(offer(rpc.datapath.Device(id="sim0", attach=attach, kernel=rpc.datapath.KernelDevice(
        vdpa="sim0", management_device="vdpasim_net"))))
    pod = {"pod": "app", "uid": "8c9d"}

    def attached(container, **values):
        with network_namespace() as netns:
            told = datapath.attach(owner(container, netns=netns, **pod), "sim0", settings(**values)).settings
            assert told.mac == vdpa_mac("sim0") == device_json(datapath, "sim0")["mac"]
            assert f"mac={told.mac}," in datapath.path("sim0", "eal-args").read_text()
            assert datapath.check(owner(container, netns=netns, **pod), "sim0", settings(**values)) == []
            assert datapath.detach(owner(container, netns=netns, **pod))
        assert vdpa_mac("sim0") == SIMULATOR_MAC
        return told.mac
    assert attached("c0", mac=ASKED) == ASKED
    stable = attached("c1")
    assert stable not in (SIMULATOR_MAC, ASKED)
    assert attached("c2") == stable, "of the pod and its network"


def test_a_mac_that_only_the_device_itself_could_change(node, datapath):
    [first] = node.add_vf_devices(1)
    datapath.set_devices(offer(kernel(first, "vdpa0", attach="vhost-vdpa")))
    with network_namespace() as netns:
        with refused(StatusCode.INVALID_ARGUMENT, first, ASKED, f"the device has {VF_MAC}",
                     "the parent of vDPA device vdpa0 can't set it", "virtio"):
            datapath.attach(owner(netns=netns), first, settings(mac=ASKED))
        assert datapath.attachment(first) is None
        assert datapath.attach(owner(netns=netns), first, settings(mac=VF_MAC)).settings.mac == VF_MAC
        assert datapath.detach(owner(netns=netns))
        assert datapath.attach(owner(netns=netns), first).settings.mac == VF_MAC, "no network requests one: it keeps its own"


def test_the_mac_of_a_pods_netdev(node, datapath):
    [first] = node.add_vf_devices(1, driver="virtio_vdpa")
    datapath.set_devices(offer(kernel(first, "vdpa0", attach="virtio-vdpa")))
    before = {name: link["address"] for name, link in netdevs().items()}
    assert VF_MAC in before.values()
    with attached_netdev(datapath, first, settings=settings(mac=ASKED)) as (netns, attached):
        assert attached.settings.mac == ASKED == netdevs(netns)["net1"]["address"]
        assert datapath.check(owner(netns=netns), first, settings(mac=ASKED)) == []
        assert datapath.stub.Detach(rpc.datapath.DetachRequest(container_id="c0", interface="net1"), timeout=30).detached
    assert {name: link["address"] for name, link in netdevs().items()} == before
