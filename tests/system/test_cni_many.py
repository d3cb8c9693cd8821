"""Many CNI calls at once on one node, as after a reboot with many pods."""

import ipaddress
from concurrent import futures

import pytest
from cni import NEW_PLUGINS, Node
from datapath import Datapath, network_namespace
from support import SANITIZED

COUNT = 12 if SANITIZED else 64


@pytest.mark.release
def test_every_add_and_del_at_once(directory):
    ipam = {"type": "host-local", "dataDir": str(directory / "leases"), "ranges": [[{"subnet": "192.0.2.0/24"}]]}
    with network_namespace() as netns, Datapath(directory) as program, futures.ThreadPoolExecutor(COUNT) as pool:
        node = Node(program.wait_serving().offer(count=COUNT).wait_healthy(), ipam=ipam)

        def add(number):
            return node.add(container=f"c{number}", device=f"nic-{number}", netns=netns, path=NEW_PLUGINS)

        def delete(number):
            node.delete(container=f"c{number}", device=f"nic-{number}", netns=netns, path=NEW_PLUGINS)
        results = list(pool.map(add, range(COUNT)))
        assert node.owners() == {f"nic-{number}": (f"c{number}", "net1") for number in range(COUNT)}
        assert len({result["interfaces"][0]["mac"] for result in results}) == COUNT
        assert len({ipaddress.ip_interface(result["ips"][0]["address"]) for result in results}) == COUNT
        for number, result in enumerate(results):
            assert list(program.attachment(f"nic-{number}").ips) == [result["ips"][0]["address"]]

        # The next pods start while the last ones end: each device changes its owner once.
        def change(number):
            if number % 2:
                return delete(number // 2)
            return node.add(container=f"d{number // 2}", device=f"nic-{number // 2}", netns=netns, path=NEW_PLUGINS)
        list(pool.map(change, range(2 * COUNT)))
        assert node.owners() == {f"nic-{number}": (f"d{number}", "net1") for number in range(COUNT)}
        list(pool.map(lambda n: node.delete(container=f"d{n}", netns=netns, path=NEW_PLUGINS), range(COUNT)))
        assert node.owners() == {}
        assert [path.name for path in (directory / "leases/fast").iterdir() if path.name[0].isdigit()] == []
        assert [worker for worker in program.processes() if worker.startswith("nic-")] == []
