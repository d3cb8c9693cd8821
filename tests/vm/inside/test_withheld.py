"""Real devices whose owner record can't be read: the pod keeps its device, and an operator frees it."""

import pytest
import rpc
from datapath import owner, refused
from grpc import StatusCode
from kernel_devices import attached_netdev, kernel, netdevs, offer


@pytest.fixture
def spoiled(datapath):
    """Kills the datapath and damages the device's record; another datapath finds it."""
    started = []

    def spoil(device, *resources):
        datapath.kill()
        datapath.record(device).write_text("{")
        started.append(datapath.restarted())
        return started[0].set_devices(*resources)
    yield spoil
    for program in started:
        program.kill()


def end_by_hand(again, device):
    assert again.attachment(device).state.startswith("withheld: the owner record ")
    with refused(StatusCode.ABORTED, f"{device}.json.bad"):
        again.attach(owner("next"), device)
    with refused(StatusCode.ABORTED, f"vdpactl detach --force {device}"):
        again.stub.Detach(rpc.datapath.DetachRequest(device_id=device), timeout=20)
    assert again.stub.Detach(rpc.datapath.DetachRequest(device_id=device, force=True), timeout=30).detached
    assert again.attachment(device) is None


def test_a_vf_behind_a_socket(node, datapath, spoiled):
    [first] = node.add_vf_devices(1)
    resource = offer(kernel(first, "vdpa0"))
    datapath.set_devices(resource)
    datapath.attach(owner("c0"), first)
    worker = datapath.worker_pid(first)
    again = spoiled(first, resource)
    assert again.worker_pid(first) == worker and again.socket(first).is_socket()
    end_by_hand(again, first)
    assert not again.processes()
    assert again.attach(owner("next"), first).state == "waiting"
    assert again.detach(owner("next"))


def test_a_netdev_in_its_pod(node, datapath, spoiled):
    [first] = node.add_vf_devices(1, driver="virtio_vdpa")
    resource = offer(kernel(first, "vdpa0", attach="virtio-vdpa"))
    datapath.set_devices(resource)
    before = len(netdevs())
    with attached_netdev(datapath, first) as (netns, _):
        again = spoiled(first, resource)
        assert "net1" in netdevs(netns), "the pod still has it"
        end_by_hand(again, first)
        assert len(netdevs()) == before and "net1" not in netdevs(netns)
        again.attach(owner("next", netns=netns), first)
        assert again.detach(owner("next", netns=netns))
