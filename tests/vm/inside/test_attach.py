"""vdpa-datapath with real devices: provisioning, attaching behind a socket and directly, and failures."""

import functools
import os
import pathlib
import resource
import subprocess

import rpc
from datapath import delete_namespace, network_namespace, owner, refused, settings
from grpc import StatusCode
from hardware import IGB_PF, run
from kernel_devices import attached_netdev, device_json, kernel, netdevs, offer
from support import Program, wait_until
from testpmd import device_application

application = functools.partial(device_application, user=0)   # outside of a pod only root may read a device's directory


def test_two_pods_on_two_vfs(node, directory, datapath):
    first, second = node.add_vf_devices(2)
    datapath.set_devices(offer(kernel(first, "vdpa0"), kernel(second, "vdpa1")))
    with network_namespace() as one, network_namespace() as two:
        a = datapath.attach(owner("c0", netns=one), first)
        b = datapath.attach(owner("c1", netns=two), second)
        assert (a.backend, a.state) == ("kernel", "waiting")
        assert a.settings.mac == "52:54:00:00:03:01"
        found = device_json(datapath, first)
        assert found["backend"] == "kernel" and found["numaNode"] == 1 and found["mac"] == "52:54:00:00:03:01"
        assert f"path=/run/vdpa/{first}/vhost.sock" in datapath.path(first, "eal-args").read_text()
        with application(directory, datapath.socket(second), "b", "macswap", 1), \
                application(directory, datapath.socket(first), "a", "flowgen", 0) as sender:
            sender.wait_received(500, "back from the other VF")
            assert datapath.attachment(first).state == "running"
            assert datapath.check(owner("c0", netns=one), first) == []
        assert datapath.detach(owner("c0", netns=one))
        assert not datapath.socket(first).exists()
        assert b.device_id == second


def test_the_datapath_restarts_under_traffic(node, directory, datapath):
    first, second = node.add_vf_devices(2)
    devices = offer(kernel(first, "vdpa0"), kernel(second, "vdpa1"))
    datapath.set_devices(devices)
    with network_namespace() as one:
        for n, device in enumerate((first, second)):
            datapath.attach(owner(f"c{n}", netns=one), device)
        workers = datapath.processes()
        with application(directory, datapath.socket(second), "b", "macswap", 1), \
                application(directory, datapath.socket(first), "a", "flowgen", 0) as sender:
            sender.wait_received(200, "before")
            datapath.process.kill()
            datapath.process.wait()
            with datapath.restarted() as again:
                again.set_devices(devices)
                sender.wait_received(200, "after")
                assert again.processes() == workers
                assert again.attachment(first).state == "running"
                assert again.detach(owner("c0", netns=one))


def test_settings_that_a_vf_cannot_have_here_are_named(node, datapath):
    [first] = node.add_vf_devices(1)
    datapath.set_devices(offer(kernel(first, "vdpa0")))
    with network_namespace() as netns:
        with refused(StatusCode.INVALID_ARGUMENT, first, "vlan 5", "virtio", f"PF {node.pf_netdev()} has no VF settings"):
            datapath.attach(owner(netns=netns), first, settings(vlan=5))
        with refused(StatusCode.INVALID_ARGUMENT, first, "the device has 52:54:00:00:03:01"):
            datapath.attach(owner(netns=netns), first, settings(mac="02:00:00:00:00:09"))
        assert datapath.attachment(first) is None
        datapath.attach(owner(netns=netns), first, settings(mac="52:54:00:00:03:01"))


def test_provisioning_from_nothing_and_back(node, datapath):
    node.make_vfs("0000:41:00.0", 2)
    first, second = node.vf(0), node.vf(1)
    node.bind(second, "virtio-pci")
    name = f"vdpa-{first}"
    made = offer(kernel(first, name, provision=True), kernel(second, f"vdpa-{second}", provision=True))
    datapath.set_devices(made)
    datapath.wait_healthy(first).wait_healthy(second)
    assert node.driver(first) == node.driver(second) == "vp-vdpa"
    assert node.character_device(name)
    with network_namespace() as netns:
        datapath.attach(owner(netns=netns), first)
        # The resource is removed while a pod has a device: its provisioning is undone when the pod is gone.
        datapath.set_devices()
        wait_until(lambda: node.driver(second) == "virtio-pci", datapath.log)
        assert node.driver(first) == "vp-vdpa"
        assert datapath.detach(owner(netns=netns))
    wait_until(lambda: node.driver(first) == "", "the first is restored: without a driver")
    assert node.vdpa_devices() == {}
    assert list((datapath.state_dir / "provisioned").iterdir()) == []


def test_what_others_made_is_left_alone(node, datapath):
    [first] = node.add_vf_devices(1)
    datapath.set_devices(offer(kernel(first, "vdpa0", provision=True)))
    datapath.wait_healthy(first)
    datapath.set_devices()
    wait_until(lambda: len(datapath.list().devices) == 0, "no device")
    assert "vdpa0" in node.vdpa_devices()
    assert node.driver(first) == "vp-vdpa"


def test_a_device_that_cannot_be_provisioned_says_why(node, datapath):
    node.make_vfs(IGB_PF, 1)
    address = node.vf(0, IGB_PF)
    datapath.set_devices(offer(kernel(address, f"vdpa-{address}", provision=True, driver="no-such-driver")))
    wait_until(lambda: "no-such-driver" in datapath.device(address).reason, lambda: datapath.device(address).reason)
    assert not datapath.device(address).healthy


def test_a_vdpa_device_deleted_under_its_pod(node, directory, datapath):
    [first] = node.add_vf_devices(1)
    datapath.set_devices(offer(kernel(first, "vdpa0")))
    with network_namespace() as netns:
        datapath.attach(owner(netns=netns), first)
        with application(directory, datapath.socket(first), "a", "txonly", 0):
            wait_until(lambda: datapath.attachment(first).state == "running", "running")
            node.delete_vdpa("vdpa0", timeout=20)
            wait_until(lambda: not datapath.device(first).healthy, "unhealthy")
            assert "vdpa0 does not exist" in datapath.device(first).reason
        assert datapath.detach(owner(netns=netns))
    node.add_vdpa("vdpa0", f"pci/{first}")
    datapath.wait_healthy(first)


def test_a_device_that_somebody_has_open_becomes_unhealthy_and_well_again(node, datapath):
    [first] = node.add_vf_devices(1)
    datapath.set_devices(offer(kernel(first, "vdpa0")))
    holder = os.open(node.character_device("vdpa0"), os.O_RDWR)
    try:
        with network_namespace() as netns:
            with refused(StatusCode.ABORTED, "another program has it"):
                datapath.attach(owner(netns=netns), first)
            wait_until(lambda: "another program has it" in datapath.device(first).reason, "the reason")
    finally:
        os.close(holder)
    datapath.wait_healthy(first)


def test_the_character_device_for_the_pod_itself(node, directory, datapath):
    [first] = node.add_vf_devices(1)
    datapath.set_devices(offer(kernel(first, "vdpa0", attach="vhost-vdpa")))
    with network_namespace() as netns:
        attached = datapath.attach(owner(netns=netns), first)
        assert attached.socket == node.character_device("vdpa0")
        assert attached.state == "direct"
        assert f"path={attached.socket}," in datapath.path(first, "eal-args").read_text()
        assert datapath.processes() == {}
        with application(directory, attached.socket, "a", "txonly", 0) as a:
            wait_until(lambda: a.counter("TX-packets") > 100, a.log)
        assert datapath.check(owner(netns=netns), first) == []
        assert datapath.detach(owner(netns=netns))


def test_qemu_on_the_character_device(node, directory, datapath):
    """Its guest is only the firmware, which has a virtio driver of its own and requests an address to boot from."""
    first, second = node.add_vf_devices(2)
    datapath.set_devices(offer(kernel(first, "vdpa0", attach="vhost-vdpa"), kernel(second, "vdpa1")))
    with network_namespace() as one, network_namespace() as two:
        attached = datapath.attach(owner("c0", netns=one), first)
        datapath.attach(owner("c1", netns=two), second)
        with application(directory, datapath.socket(second), "b", "rxonly", 1) as peer:
            qemu = Program("qemu", [
                "qemu-system-x86_64", "-machine", "q35,accel=tcg", "-m", "64", "-nodefaults", "-display", "none",
                "-boot", "order=n", "-netdev", f"vhost-vdpa,id=net,vhostdev={attached.socket}",
                "-device", "virtio-net-pci,netdev=net,vectors=0,disable-legacy=on"], directory,
                # The kernel pins the guest's memory.
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2))
            with qemu:
                # The emulated machine emulates another one.
                wait_until(lambda: peer.counter("RX-packets") > 2, lambda: qemu.log() + peer.log(), 300)
                assert datapath.check(owner("c0", netns=one), first) == []
        assert qemu.log() == ""
        assert datapath.detach(owner("c0", netns=one))


def test_a_character_device_is_not_taken_from_a_pod_that_has_it(node, datapath):
    """It would be in the next pod's network."""
    [first] = node.add_vf_devices(1)
    datapath.set_devices(offer(kernel(first, "vdpa0", attach="vhost-vdpa")))
    with network_namespace() as netns, network_namespace() as other:
        mine, next_one = owner(netns=netns, pod="old"), owner("c1", netns=other, pod="new")
        device = os.open(datapath.attach(mine, first).socket, os.O_RDWR)
        try:
            datapath.kubelet.pods["default", "new"] = "vdpa.io/nic", [first]
            with refused(StatusCode.ABORTED, "held by", "old"):
                datapath.attach(next_one, first)
            with refused(StatusCode.ABORTED, "a program has", "fuser"):
                datapath.detach(mine)
            with refused(StatusCode.ABORTED, "a program has"):
                datapath.attach(next_one, first)
        finally:
            os.close(device)
        assert datapath.attach(next_one, first).state == "direct"
        assert datapath.detach(next_one)


def test_what_a_program_has_open_is_not_removed_under_it(node, datapath):
    """The kernel would wait for its end, with a lock that every other device needs."""
    node.make_vfs("0000:41:00.0", 1)
    first = node.vf(0)
    made = kernel(first, "vdpa7", provision=True)
    datapath.set_devices(offer(made))
    datapath.wait_healthy(first)
    device = os.open(node.character_device("vdpa7"), os.O_RDWR)
    try:
        datapath.set_devices()
        datapath.wait_log("cannot undo the provisioning of " + first + ": a program has ")
        datapath.set_devices(offer(kernel(first, "vdpa7", attach="virtio-vdpa", provision=True)))
        datapath.wait_log("cannot make vDPA device vdpa7: a program has ")
        assert set(node.vdpa_devices()) == {"vdpa7"}
        datapath.set_devices()
    finally:
        os.close(device)
    wait_until(lambda: node.vdpa_devices() == {}, datapath.log)


def test_the_netdev_moves_into_the_pod_and_back(node, datapath):
    [first] = node.add_vf_devices(1, driver="virtio_vdpa")
    datapath.set_devices(offer(kernel(first, "vdpa0", attach="virtio-vdpa")))
    before = netdevs()
    route = rpc.datapath.Route(destination="198.18.0.0/15", gateway="10.9.0.1")
    with attached_netdev(datapath, first, ips=["10.9.0.2/24", "fd00:9::2/64"], routes=[route],
                         settings=settings(mtu=1400)) as (netns, attached):
        assert attached.settings.mtu == 1400
        link = netdevs(netns)["net1"]
        assert attached.settings.mac == link["address"] != "52:54:00:00:03:01", "the pod's own"
        assert "UP" in link["flags"] and link["mtu"] == 1400
        assert {"10.9.0.2", "fd00:9::2"} <= {address["local"] for address in link["addr_info"]}
        assert "198.18.0.0/15 via 10.9.0.1" in run("ip", "-n", pathlib.Path(netns).name, "route")
        assert len(netdevs()) == len(before) - 1
        assert datapath.check(owner(netns=netns), first, settings(mtu=1400), ["10.9.0.2/24", "fd00:9::2/64"]) == []
        assert datapath.detach(owner(netns=netns))
        assert set(netdevs()) == set(before)
        assert "net1" not in netdevs(netns)


def test_nothing_of_what_a_pod_did_to_its_netdev_comes_back_with_it(node, datapath):
    [first] = node.add_vf_devices(1, driver="virtio_vdpa")
    datapath.set_devices(offer(kernel(first, "vdpa0", attach="virtio-vdpa")))
    before = netdevs()
    with attached_netdev(datapath, first, settings=settings(mtu=1400)) as (netns, _), network_namespace() as other:
        pod = pathlib.Path(netns).name
        run("ip", "-n", pod, "link", "set", "net1", "down")
        run("ip", "-n", pod, "link", "set", "net1", "name", "mine", "address", "02:00:00:00:00:77", "mtu", "1300")
        run("ip", "-n", pod, "link", "set", "mine", "netns", pathlib.Path(other).name)
        assert datapath.detach(owner(netns=netns))
        assert "mine" not in netdevs(other)
    after = netdevs()
    assert set(after) == set(before)
    for name, link in after.items():
        assert (link["address"], link["mtu"]) == (before[name]["address"], before[name]["mtu"])


def test_the_netdev_of_a_pod_that_is_gone_comes_back(node, datapath):
    [first] = node.add_vf_devices(1, driver="virtio_vdpa")
    datapath.set_devices(offer(kernel(first, "vdpa0", attach="virtio-vdpa")))
    before = set(netdevs())
    with attached_netdev(datapath, first) as (netns, _):
        delete_namespace(netns)
        assert datapath.detach(owner(netns=netns))
    assert set(netdevs()) == before


def test_a_pod_without_room_for_the_name_loses_nothing(node, datapath):
    [first] = node.add_vf_devices(1, driver="virtio_vdpa")
    datapath.set_devices(offer(kernel(first, "vdpa0", attach="virtio-vdpa")))
    before = set(netdevs())
    with network_namespace() as netns:
        subprocess.run(["ip", "-n", pathlib.Path(netns).name, "link", "add", "net1", "type", "veth"], check=True)
        with refused(StatusCode.INTERNAL, "net1"):
            datapath.attach(owner(netns=netns), first)
    assert datapath.attachment(first) is None
    assert set(netdevs()) == before
