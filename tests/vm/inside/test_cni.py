"""The CNI plugin with real devices: a pod gets a netdev with addresses and routes, or a socket, and gives it back."""

import pathlib

import cni
import pytest
from datapath import network_namespace
from node import run
from test_attach import datapath, kernel, netdevs, offer  # noqa: F401 (a fixture)


def network(datapath, device, directory):
    return {"cniVersion": "1.0.0", "name": "fast", "type": "vdpa", "deviceID": device,
            "datapathSocket": str(datapath.run_dir / "datapath.sock"),
            "ipam": {"type": "host-local", "dataDir": str(directory / "ipam"), "ranges": [[{"subnet": "10.9.0.0/24"}]],
                     "routes": [{"dst": "198.18.0.0/15"}]}}


@pytest.mark.parametrize("attach, driver", [("virtio-vdpa", "virtio_vdpa"), ("vhost-user", "vhost_vdpa")])
def test_add_check_and_del(node, directory, datapath, attach, driver):  # noqa: F811
    [first] = node.add_vf_devices(1, driver=driver)
    datapath.set_devices(offer(kernel(first, "vdpa0", attach=attach)))
    with network_namespace() as netns:
        config = network(datapath, first, directory)
        variables = {"CNI_NETNS": netns, "CNI_PATH": str(cni.DEBIAN_PLUGINS)}
        result = cni.call("ADD", config, variables)
        [interface] = result["interfaces"]
        assert (interface["name"], interface["mac"]) == ("net1", "52:54:00:00:03:01")
        inside = netdevs(netns)
        if attach == "virtio-vdpa":
            assert "10.9.0.2" in {address["local"] for address in inside["net1"]["addr_info"]}
            assert "198.18.0.0/15 via 10.9.0.1 dev net1" in run("ip", "-n", pathlib.Path(netns).name, "route")
        else:
            assert set(inside) == {"lo"}
        cni.call("CHECK", config | {"prevResult": result}, variables)
        cni.call("DEL", config, variables)
        assert set(netdevs(netns)) == {"lo"}
        assert datapath.attachment(first) is None
        assert not list((directory / "ipam/fast").glob("10.*"))
