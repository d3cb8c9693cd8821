"""The CNI plugin with real devices: a pod gets a netdev with addresses and routes, or a socket, and returns it."""

import contextlib
import json
import pathlib
import re
import socket
import subprocess
import time

import cni
import pytest
import rpc
from cni import device_info  # noqa: F401 (a fixture)
from cnitool import Tool
from datapath import network_namespace, owner
from hardware import PCI, VIRTIO_PF, run
from kernel_devices import kernel, netdevs, offer
from support import wait_until

MAC = "52:54:00:00:03:01"


def network(datapath, device, directory):
    return {"cniVersion": "1.1.0", "name": "fast", "type": "vdpa", "deviceID": device,
            "datapathSocket": str(datapath.run_dir / "datapath.sock"),
            "ipam": {"type": "host-local", "dataDir": str(directory / "ipam"), "ranges": [[{"subnet": "10.9.0.0/24"}]],
                     "routes": [{"dst": "198.18.0.0/15", "mtu": 1200, "priority": 7}]}}


def inside(netns, *command):
    return run("ip", "-n", pathlib.Path(netns).name, *command)


@pytest.mark.parametrize("attach, driver", [("virtio-vdpa", "virtio_vdpa"), ("vhost-user", "vhost_vdpa"),
                                            ("vhost-vdpa", "vhost_vdpa")])
def test_add_check_and_del(node, directory, datapath, device_info, attach, driver):
    [first] = node.add_vf_devices(1, driver=driver)
    datapath.set_devices(offer(kernel(first, "vdpa0", attach=attach)))
    info = device_info
    with network_namespace() as netns:
        config = network(datapath, first, directory) | {"runtimeConfig": {"CNIDeviceInfoFile": str(info)}}
        variables = {"CNI_NETNS": netns, "CNI_PATH": str(cni.NEW_PLUGINS)}
        result = cni.call("ADD", config, variables)
        [interface] = result["interfaces"]
        assert (interface["name"], interface["pciID"]) == ("net1", first)
        if attach != "virtio-vdpa":   # a vp-vdpa device can't be given another MAC
            assert interface["mac"] == MAC
        assert json.loads(datapath.path(first, "device.json").read_text())["ips"] == ["10.9.0.2/24"]
        links = netdevs(netns)
        told = json.loads(info.read_text())
        if attach == "virtio-vdpa":
            assert interface["mac"] == links["net1"]["address"] != MAC
            assert "10.9.0.2" in {address["local"] for address in links["net1"]["addr_info"]}
            [route] = [r for r in inside(netns, "route").splitlines() if r.startswith("198.18.0.0/15")]
            assert "via 10.9.0.1 dev net1" in route and "metric 7" in route and "mtu 1200" in route
            assert told["vdpa"]["driver"] == "virtio" and pathlib.Path(told["vdpa"]["path"]).exists()
        else:
            assert set(links) == {"lo"}
        if attach == "vhost-vdpa":
            assert told == {"type": "vdpa", "version": "1.1.0", "vdpa": {
                "parent-device": "vdpa0", "driver": "vhost", "path": node.character_device("vdpa0"),
                "pci-address": first}}
        cni.call("CHECK", config | {"prevResult": result}, variables)
        cni.call("DEL", config, variables)
        assert set(netdevs(netns)) == {"lo"}
        assert datapath.attachment(first) is None
        assert not list((directory / "ipam/fast").glob("10.*"))


def test_check_names_each_difference_of_a_netdev(node, directory, datapath):
    [first] = node.add_vf_devices(1, driver="virtio_vdpa")
    datapath.set_devices(offer(kernel(first, "vdpa0", attach="virtio-vdpa")))
    with network_namespace() as netns:
        config = network(datapath, first, directory) | {"mtu": 1400}
        variables = {"CNI_NETNS": netns, "CNI_PATH": str(cni.NEW_PLUGINS)}
        config["prevResult"] = cni.call("ADD", config, variables)
        inside(netns, "route", "del", "198.18.0.0/15")
        inside(netns, "addr", "flush", "dev", "net1")
        inside(netns, "link", "set", "net1", "down", "mtu", "1450")
        with cni.refused(cni.DIFFERS, "net1 is down", "mtu of net1 is 1450; expected at most 1400", "no address 10.9.0.2/24",
                         "no route to 198.18.0.0/15 via 10.9.0.1"):
            cni.call("CHECK", config, variables)
        inside(netns, "link", "set", "net1", "name", "mine")
        with cni.refused(cni.DIFFERS, "no interface net1"):
            cni.call("CHECK", config, variables)
        cni.call("DEL", config, variables)


@contextlib.contextmanager
def other_end(node):
    """The netdev at the other end of the first VF's wire, in a namespace of its own: its path and the netdev."""
    second = node.vf(1)
    node.bind(second, "virtio-pci")
    device = PCI / "devices" / second
    name = wait_until(lambda: next((path.name for path in device.glob("virtio*/net/*")), None), "a netdev")
    with network_namespace() as netns:
        run("ip", "link", "set", name, "netns", pathlib.Path(netns).name)
        inside(netns, "link", "set", name, "up")
        inside(netns, "addr", "add", "10.9.0.1/24", "dev", name)
        yield netns, name
        node.unbind(second)


@pytest.fixture
def wired(node, datapath):
    """The first VF, as a pod's netdev."""
    node.make_vfs(VIRTIO_PF, 2)
    first = node.vf(0)
    node.bind(first, "vp-vdpa")
    node.add_vdpa("vdpa0", f"pci/{first}", driver="virtio_vdpa")
    datapath.set_devices(offer(kernel(first, "vdpa0", attach="virtio-vdpa")))
    return first


class Listener:
    """The frames received on a netdev of another namespace."""

    def __init__(self, netns, name):
        code = ("import socket, sys; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); "
                f"s.bind(({name!r}, 0)); print('ready', flush=True)\n"
                "while True: print(s.recv(2048).hex(), flush=True)")
        self.process = subprocess.Popen(["ip", "netns", "exec", pathlib.Path(netns).name, "python3", "-c", code],
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def wait(self, wanted, seconds=20):
        deadline = time.monotonic() + seconds
        seen = []
        while time.monotonic() < deadline:   # the guest's own traffic ends each wait
            seen.append(self.process.stdout.readline().strip())
            if wanted(bytes.fromhex(seen[-1])):
                return
        raise AssertionError(seen)


def test_addresses_are_announced_replaced_and_kept_apart_from_others(node, datapath, wired):
    def set_addresses(ips, *routes):
        return datapath.stub.SetAddresses(rpc.datapath.SetAddressesRequest(
            container_id="c0", interface="net1", ips=ips,
            routes=[rpc.datapath.Route(destination=to, gateway=via) for to, via in routes]), timeout=20)
    with network_namespace() as netns, other_end(node) as (outside, name), Listener(outside, name) as listener:
        mac = bytes.fromhex(datapath.attach(owner(netns=netns), wired).settings.mac.replace(":", ""))
        inside(netns, "link", "add", "other", "type", "veth")
        inside(netns, "link", "set", "other", "up")
        inside(netns, "addr", "add", "192.0.2.9/24", "dev", "other")
        inside(netns, "route", "add", "198.51.100.0/24", "via", "192.0.2.1")
        inside(netns, "addr", "add", "10.9.0.99/24", "dev", "net1")   # configured by another program
        set_addresses(["10.9.0.2/24", "fd00:9::2/64"], ("198.18.0.0/15", "10.9.0.1"), ("198.51.100.0/24", "10.9.0.1"),
                      ("2001:db8::7/32", "fd00:9::1"))
        own = socket.inet_aton("10.9.0.2")
        listener.wait(lambda f: f[:14] == b"\xff" * 6 + mac + b"\x08\x06" and f[22:32] == mac + own and f[38:42] == own)
        target = socket.inet_pton(socket.AF_INET6, "fd00:9::2")
        listener.wait(lambda f: f[6:14] == mac + b"\x86\xdd" and f[54] == 136 and f[62:78] == target and f[80:86] == mac)
        # At once, without duplicate address detection, which would take a second.
        addresses = netdevs(netns)["net1"]["addr_info"]
        assert not any(address.get("tentative") for address in addresses if address["local"] == "fd00:9::2")
        assert "198.51.100.0/24 via 192.0.2.1 dev other" in inside(netns, "route"), "the first route stays"
        assert "2001:db8::/32 via fd00:9::1" in inside(netns, "-6", "route")
        assert datapath.check(owner(netns=netns), wired, ips=["10.9.0.2/24", "fd00:9::2/64"]) == []

        # After a restart the datapath still knows which addresses to replace.
        datapath.process.kill()
        datapath.process.wait()
        with datapath.restarted() as again:
            again.set_devices(offer(kernel(wired, "vdpa0", attach="virtio-vdpa")))
            again.stub.SetAddresses(rpc.datapath.SetAddressesRequest(
                container_id="c0", interface="net1", ips=["10.9.0.3/24"],
                routes=[rpc.datapath.Route(destination="198.18.0.0/16", gateway="10.9.0.1")]), timeout=20)
            found = {address["local"] for address in netdevs(netns)["net1"]["addr_info"] if address["scope"] == "global"}
            assert found == {"10.9.0.3", "10.9.0.99"}
            routes = inside(netns, "route")
            assert "198.18.0.0/16 via 10.9.0.1" in routes and "198.18.0.0/15" not in routes
            assert "198.51.100.0/24 via 192.0.2.1 dev other" in routes
            assert again.check(owner(netns=netns), wired, ips=["10.9.0.3/24"]) == []
            assert again.detach(owner(netns=netns))


@contextlib.contextmanager
def dhcp_daemon(directory, *options):
    path = directory / "dhcp.sock"
    with subprocess.Popen([cni.NEW_PLUGINS / "dhcp", "daemon", "-socketpath", path, *options]) as daemon:
        try:
            wait_until(path.exists, "the socket of the dhcp plugin's daemon")
            yield str(path)
        finally:
            daemon.kill()


@contextlib.contextmanager
def dhcp_server(directory, netns, name):
    (directory / "leases").write_text("")
    (directory / "udhcpd.conf").write_text(
        f"start 10.9.0.20\nend 10.9.0.30\ninterface {name}\nlease_file {directory}/leases\npidfile {directory}/pid\n"
        "opt subnet 255.255.255.0\nopt router 10.9.0.1\nopt lease 600\n")
    with subprocess.Popen(["ip", "netns", "exec", pathlib.Path(netns).name, "busybox", "udhcpd", "-f",
                           directory / "udhcpd.conf"]) as server:
        try:
            yield
        finally:
            server.kill()


def test_an_address_from_a_dhcp_server(node, directory, datapath, wired):
    with network_namespace() as netns, other_end(node) as (outside, name), dhcp_server(directory, outside, name), \
            dhcp_daemon(directory) as path:
        config = network(datapath, wired, directory) | {"ipam": {"type": "dhcp", "daemonSocketPath": path}}
        variables = {"CNI_NETNS": netns, "CNI_PATH": str(cni.NEW_PLUGINS)}
        result = cni.call("ADD", config, variables)
        [address] = [ip["address"] for ip in result["ips"]]
        assert re.fullmatch(r"10\.9\.0\.(2\d|30)/24", address), "of the server's range"
        assert address.split("/")[0] in {a["local"] for a in netdevs(netns)["net1"]["addr_info"]}
        assert list(datapath.attachment(wired).ips) == [address]
        run("ip", "netns", "exec", pathlib.Path(netns).name, "ping", "-c", "1", "-W", "10", "10.9.0.1")
        cni.call("CHECK", config | {"prevResult": result}, variables)
        cni.call("DEL", config, variables)
        assert datapath.attachment(wired) is None and set(netdevs(netns)) == {"lo"}


def test_without_a_dhcp_server_all_is_undone(node, directory, datapath, wired):
    with network_namespace() as netns, dhcp_daemon(directory, "-timeout", "1s", "-resendtimeout", "2s") as path:
        config = network(datapath, wired, directory) | {"ipam": {"type": "dhcp", "daemonSocketPath": path}}
        variables = {"CNI_NETNS": netns, "CNI_PATH": str(cni.NEW_PLUGINS)}
        with pytest.raises(cni.Refused, match="dhcp"):
            cni.call("ADD", config, variables)
        assert datapath.attachment(wired) is None and set(netdevs(netns)) == {"lo"}


def test_tuning_works_on_our_interface(node, directory, datapath, wired):
    """A chain run by cnitool: changes by a later plugin are no difference for CHECK, and the pod's return routes work."""
    with network_namespace() as netns:
        ours = network(datapath, wired, directory)
        del ours["deviceID"], ours["cniVersion"], ours["name"]
        tuning = {"type": "tuning", "mac": "02:00:00:00:00:77", "mtu": 1300, "promisc": True,
                  "dataDir": str(directory / "tuning"), "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}
        tool = Tool(directory, netns, [ours, tuning], {"deviceID": wired})
        result = json.loads(tool.succeed("add"))
        [interface] = result["interfaces"]
        assert (interface["name"], interface["mac"]) == ("net1", "02:00:00:00:00:77")
        assert [ip["address"] for ip in result["ips"]] == ["10.9.0.2/24"]
        link = netdevs(netns)["net1"]
        assert (link["address"], link["mtu"]) == ("02:00:00:00:00:77", 1300) and "PROMISC" in link["flags"]
        tool.succeed("check")
        inside(netns, "link", "set", "net1", "address", "02:00:00:00:00:78")
        assert "expected 02:00:00:00:00:77" in tool.fail("check")
        tool.succeed("del")
        assert datapath.attachment(wired) is None and set(netdevs(netns)) == {"lo"}
