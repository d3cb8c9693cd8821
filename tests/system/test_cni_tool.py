"""The CNI plugin called by cnitool: an independent implementation of the protocol, with results from libcni's cache."""

import json
import pathlib

import pytest

from cni import DEVICE_INFO, daemon, name_in, node  # noqa: F401 (fixtures)
from cnitool import Tool, container_of
from datapath import network_namespace, read_json

SOCKET = "/run/vdpa/nic-1/vhost.sock"


@pytest.fixture
def plugin(node, directory):
    return {"type": "vdpa", "datapathSocket": str(node.datapath.run_dir / "datapath.sock"),
            "ipam": {"type": "host-local", "dataDir": str(directory / "leases"),
                     "ranges": [[{"subnet": "192.0.2.0/24"}]]}}


@pytest.fixture
def tool(directory, plugin):
    with network_namespace() as netns, name_in(DEVICE_INFO, f"-{container_of(netns)}_net1") as device_info:
        yield Tool(directory, netns, [plugin], {"deviceID": "nic-1", "mac": "02:00:00:00:00:01",
                                                "CNIDeviceInfoFile": str(device_info)},
                   "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=till")


def leases(directory):
    return [path.name for path in (directory / "leases/fast").glob("192.*")]


def test_add_check_and_del(node, tool, directory):
    tool.succeed("status")
    result = json.loads(tool.succeed("add"))
    assert result["cniVersion"] == "1.1.0" and result["ips"][0]["address"] == "192.0.2.2/24"
    assert result["interfaces"] == [{"name": "net1", "mac": "02:00:00:00:00:01", "mtu": 1500, "sandbox": tool.netns,
                                     "socketPath": SOCKET}]
    assert read_json(pathlib.Path(tool.capabilities["CNIDeviceInfoFile"]))["vhost-user"]["path"] == SOCKET
    owner = node.datapath.attachment("nic-1").owner
    assert (owner.pod_namespace, owner.pod_name, owner.network) == ("shop", "till", "fast")
    assert len(tool.cached()) == 1 and leases(directory) == ["192.0.2.2"]
    tool.succeed("check")   # with the result from the cache
    node.datapath.socket("nic-1").unlink()
    assert "vhost.sock is missing" in tool.fail("check")
    tool.succeed("del")
    tool.succeed("del")
    assert node.owners() == {} and leases(directory) == [] and tool.cached() == []


def test_garbage_collection_from_the_cache(node, tool, directory):
    """cnitool passes no list of valid attachments. libcni detaches those in its cache, and nothing else may be detached, since
    a missing list is not an empty one."""
    tool.succeed("add")
    node.add(container="other", device="nic-2")
    assert "cni.dev/valid-attachments" in tool.fail("gc")
    assert node.owners() == {"nic-2": ("other", "net1")}
    assert leases(directory) == [] and tool.cached() == []


def test_status_without_the_daemon(tool, plugin, directory):
    tool.write([{**plugin, "datapathSocket": str(directory / "gone/datapath.sock")}])
    assert "gone/datapath.sock" in tool.fail("status")
