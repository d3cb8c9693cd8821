"""vdpa-device-plugin with kubelets of every kind: from 1.37 on, a socket path that the kubelet still has is permanently
refused; before, the end of an old stream disconnects the new plugin (kubelet.py)."""

import socket
import time
from concurrent import futures

import grpc
import pytest

from device_plugin import HEALTHY, config_text, node, wait_devices  # noqa: F401, the fixture by its name
from rpc import deviceplugin
from support import wait_until

every = pytest.mark.parametrize("node", ["path", "name", "newest"], indirect=True)


def wait_other(node, before=None, resource="vdpa.io/nic", devices=HEALTHY):
    """The kubelet's side of a registration after `before`, with a live stream."""
    def living():
        plugin = node.kubelet.plugins.get(resource)
        return plugin if plugin and plugin is not before and not plugin.ended.is_set() else None
    wait_until(lambda: living() and living().devices == devices, lambda: f"another one; {node.kubelet.registrations}")
    return living()


@every
def test_a_socket_that_is_deleted_again_and_again_is_always_registered_again(node):
    with node.plugin() as plugin:
        seen = wait_other(node)
        for n in range(80):
            node.kubelet.late = n % 2   # whether the kubelet has noticed the old stream's end at the next Register
            seen.path.unlink(missing_ok=True)   # with "name", a late end may have replaced it already
            seen = wait_other(node, seen)
        assert "cannot register" not in plugin.log()
        wait_until(lambda: [p.name for p in node.kubelet.sockets()] == [node.kubelet.registrations[-1][1]],
                   lambda: f"no socket except the last; {node.kubelet.sockets()}")


@every
def test_a_register_in_the_instant_in_which_a_stream_ends_is_taken(node):
    """200 times, spread over many resources, since several short streams of one are followed by a back-off."""
    names = [f"nic{n}" for n in range(50)]
    node.config.write_text(config_text(*((name, 1) for name in names)))
    with node.plugin() as plugin:
        for name in names:
            this = {"resource": f"vdpa.io/{name}", "devices": {f"{name}-0": "Healthy"}}
            seen = wait_other(node, **this)
            for late in (0, 1, 0, 1):
                node.kubelet.late = late
                seen.stream.cancel()
                seen = wait_other(node, seen, **this)
        assert "cannot register" not in plugin.log()
        assert len({endpoint for _, endpoint in node.kubelet.registrations}) == len(node.kubelet.registrations)


def test_a_kubelet_that_ends_every_stream_at_once_is_asked_less_and_less(node):
    node.kubelet.brief = 10
    begin = time.monotonic()
    with node.plugin():
        wait_until(lambda: len(node.kubelet.registrations) == 11, lambda: f"11; {node.kubelet.registrations}")
        wait_other(node)
        assert time.monotonic() - begin >= 0.05 * (2 ** 7 - 1), "the first three ends are followed at once, then it doubles"


def test_a_refused_attempt_is_not_repeated_with_its_socket(node):
    node.kubelet.refusals = 3
    with node.plugin():
        wait_other(node)
        assert len({endpoint for _, endpoint in node.kubelet.registrations}) == 4


def abandoned(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return path


class Release010(deviceplugin.DevicePluginServicer):
    """The previous release's plugin: one fixed socket name. It ends like a killed one."""

    def __init__(self, node):
        self.path = node.kubelet.directory / "vdpa.io-nic.sock"
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        deviceplugin.add_DevicePluginServicer_to_server(self, self.server)
        self.server.add_insecure_port(f"unix:{self.path}")
        self.server.start()
        with grpc.insecure_channel(f"unix:{node.kubelet.directory}/kubelet.sock") as kubelet:
            deviceplugin.RegistrationStub(kubelet).Register(deviceplugin.RegisterRequest(
                version="v1beta1", endpoint=self.path.name, resource_name="vdpa.io/nic"), timeout=5)

    def GetDevicePluginOptions(self, request, context):
        return deviceplugin.DevicePluginOptions(get_preferred_allocation_available=True)

    def ListAndWatch(self, request, context):
        ended = futures.Future()
        context.add_callback(lambda: ended.set_result(None))
        yield deviceplugin.ListAndWatchResponse(devices=[deviceplugin.Device(ID="nic-0", health="Healthy")])
        ended.result()

    def kill(self):
        self.server.stop(None).wait()
        self.path.unlink(missing_ok=True)
        abandoned(self.path)


@every
def test_it_follows_release_0_1_0_which_the_kubelet_has_still(node):
    old = Release010(node)
    seen = node.kubelet.wait_plugin()
    node.kubelet.late = 1
    old.kill()
    assert seen.ended.wait(5)
    with node.plugin() as plugin:
        wait_other(node, seen)
        assert "cannot register" not in plugin.log()
        assert not old.path.exists(), "the socket that 0.1.0 left"


def test_sockets_of_a_killed_plugin_are_removed_at_the_next_start(node):
    others = abandoned(node.kubelet.directory / "example.com-nic-0123abcd.sock")
    node.config.write_text(config_text(("nic", 3), ("gone", 1)))
    with node.plugin("killed") as killed:
        wait_devices(node, HEALTHY)
        wait_devices(node, {"gone-0": "Healthy"}, resource="vdpa.io/gone")
        killed.kill()
    left = node.kubelet.sockets() + node.kubelet.sockets("vdpa.io/gone")
    assert len(left) == 2
    node.config.write_text(config_text(("nic", 3)))
    with node.plugin():
        wait_other(node, node.kubelet.plugins["vdpa.io/nic"])
        assert not any(path.exists() for path in left)
        assert others.exists()
