"""vdpa-device-plugin and a datapath that refuses the devices, delays its answer, or reports failed processes."""

import grpc
import pytest

from device_plugin import HEALTHY, UNHEALTHY, config_text, node, wait_devices  # noqa: F401 (a fixture)
from support import wait_until

THREE, FOUR, ONE = (config_text(("nic", count)) for count in (3, 4, 1))


def test_devices_that_the_datapath_refuses_are_unhealthy_with_its_words(node):
    node.datapath.refusal = grpc.StatusCode.INVALID_ARGUMENT, "nic-1 has an attach that is none"
    with node.plugin() as plugin:
        kubelet_side = wait_devices(node, UNHEALTHY)
        wait_until(lambda: node.datapath.calls >= 3, "it retries")
        with pytest.raises(grpc.RpcError) as refused:
            kubelet_side.allocate("nic-0")
        assert "nic-1 has an attach that is none" in refused.value.details()
        warnings = [line for line in plugin.log().splitlines() if " vdpa-device-plugin: cannot reach vdpa-datapath on " in line
                    and "attach that is none" in line]
        assert len(warnings) == 1, "an unchanged refusal is not logged again"
        node.datapath.refusal = None
        wait_devices(node, HEALTHY)
        assert plugin.running() and len(node.kubelet.registrations) == 1


def test_a_change_that_the_datapath_refuses_is_tried_until_it_is_taken(node):
    with node.plugin() as plugin:
        wait_devices(node, HEALTHY)
        node.datapath.refusal = grpc.StatusCode.INTERNAL, "no room for nic-3"
        node.config.write_text(FOUR)
        plugin.wait_log("no room for nic-3")
        node.datapath.refusal = None
        wait_devices(node, HEALTHY | {"nic-3": "Healthy"})
        assert [device.id for device in node.datapath.sets[-1].resources[0].devices][-1] == "nic-3"


def test_while_the_datapath_takes_its_time_the_kubelet_and_pods_go_on(node):
    """New devices are unhealthy until the datapath has them, old ones stay healthy. Only the newest change is sent."""
    with node.plugin() as plugin:
        kubelet_side = wait_devices(node, HEALTHY)
        node.datapath.open.clear()
        node.config.write_text(FOUR)
        wait_devices(node, HEALTHY | {"nic-3": "Unhealthy"})
        wait_until(lambda: node.datapath.calls == 2, "the second call")
        kubelet_side.allocate("nic-0")
        with pytest.raises(grpc.RpcError):
            kubelet_side.allocate("nic-3")
        node.config.write_text(config_text(("nic", 5)))
        wait_devices(node, HEALTHY | {"nic-3": "Unhealthy", "nic-4": "Unhealthy"})
        node.config.write_text(config_text(("nic", 6)))
        wait_devices(node, HEALTHY | {"nic-3": "Unhealthy", "nic-4": "Unhealthy", "nic-5": "Unhealthy"})
        plugin.explain("nic-5")  # by the thread that sent the change after the list
        assert node.datapath.calls == 2, "one call at a time"
        node.datapath.open.set()
        wait_devices(node, {f"nic-{n}": "Healthy" for n in range(6)})
        wait_until(lambda: [len(request.resources[0].devices) for request in node.datapath.sets] == [3, 4, 6],
                   lambda: str(node.datapath.sets))


def test_a_device_is_unhealthy_with_the_datapath_s_reason_and_healthy_again(node):
    with node.plugin() as plugin:
        kubelet_side = wait_devices(node, HEALTHY)
        node.datapath.report("nic-1", False, "vdpa-switch of vdpa.io/nic is not running: killed by signal 9")
        wait_devices(node, HEALTHY | {"nic-1": "Unhealthy"})
        assert "killed by signal 9" in plugin.explain("nic-1")
        with pytest.raises(grpc.RpcError) as refused:
            kubelet_side.allocate("nic-1")
        assert "killed by signal 9" in refused.value.details()
        node.datapath.report("nic-1", True)
        wait_devices(node, HEALTHY)
        kubelet_side.allocate("nic-1")


def test_devices_that_left_come_back_unhealthy_until_the_datapath_has_them(node):
    with node.plugin():
        wait_devices(node, HEALTHY)
        node.config.write_text(ONE)
        wait_devices(node, {"nic-0": "Healthy"})
        wait_until(lambda: len(node.datapath.sets[-1].resources[0].devices) == 1, "the datapath to have the set")
        node.datapath.open.clear()
        node.config.write_text(THREE)
        wait_devices(node, {"nic-0": "Healthy", "nic-1": "Unhealthy", "nic-2": "Unhealthy"})
        node.datapath.open.set()
        wait_devices(node, HEALTHY)


def test_devices_that_left_and_came_back_before_the_datapath_heard_of_it_are_healthy(node):
    """It reports no change, since its state has not changed."""
    with node.plugin() as plugin:
        wait_devices(node, HEALTHY)
        node.datapath.open.clear()
        node.config.write_text(FOUR)
        wait_devices(node, HEALTHY | {"nic-3": "Unhealthy"})
        node.config.write_text(ONE)
        wait_devices(node, {"nic-0": "Healthy"})
        node.config.write_text(FOUR)
        wait_until(lambda: len(node.kubelet.wait_plugin().devices) == 4, "all of them listed")
        plugin.explain("nic-3")  # by the thread that sent the change after the list
        node.datapath.open.set()
        wait_devices(node, HEALTHY | {"nic-3": "Healthy"})
        wait_until(lambda: [len(request.resources[0].devices) for request in node.datapath.sets] == [3, 4, 4],
                   lambda: str(node.datapath.sets))
