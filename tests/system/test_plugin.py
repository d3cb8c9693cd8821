"""vdpa-device-plugin as a process, with a kubelet stand-in and with or without a datapath stand-in."""

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import time
import urllib.request

import grpc
import pytest

import datapath as daemons
from device_plugin import (CTL, HEALTHY, PROGRAM, UNHEALTHY, DevicePlugin, PluginNode, config_text, node,  # noqa: F401
                           wait_devices)
from rpc import channel, deviceplugin
from support import own_address, suspend, wait_until


def test_it_registers_lists_and_tells_the_datapath(node):
    with node.plugin() as plugin:
        kubelet_side = wait_devices(node, HEALTHY)
        assert kubelet_side.options.get_preferred_allocation_available
        assert not kubelet_side.options.pre_start_required
        resource = node.datapath.sets[-1].resources[0]
        assert resource.name == "vdpa.io/nic"
        assert [d.id for d in resource.devices] == ["nic-0", "nic-1", "nic-2"]
        assert resource.socket.mode == 0o666 and resource.software.mtu == 1500
        assert plugin.stop() == 0
    assert not node.kubelet.sockets()


def test_its_sockets_go_before_all_else_when_it_ends(node):
    """If a plugin takes too long to stop and is killed, they would be left in the kubelet's directory."""
    gone = []

    class Busy(dict):
        """A kubelet that has not answered yet when the plugin stops; the plugin waits for it for two seconds."""

        def items(self):
            if not gone:
                os.kill(plugin.pid, signal.SIGTERM)
                end = time.monotonic() + 1.8
                while node.kubelet.sockets() and time.monotonic() < end:
                    time.sleep(0.01)
                gone.append(not node.kubelet.sockets())
            return super().items()

    with node.plugin() as plugin:
        wait_devices(node, HEALTHY)
        node.kubelet.pods = Busy()
        wait_until(lambda: gone, "the call to the kubelet")
        assert gone == [True]
        assert plugin.stop() == 0


def test_it_ends_as_it_is_told_to_while_its_metrics_are_served(node):
    """The metrics server's threads don't take the signal from the thread that waits for it."""
    for _ in range(3):
        with DevicePlugin(node.directory, node.config, "--metrics-address", f"{own_address()}:19464") as plugin:
            wait_devices(node, HEALTHY)
            assert plugin.stop() == 0
        assert not node.kubelet.sockets()


def test_allocate_answers_with_mount_and_variables(node):
    with node.plugin():
        kubelet_side = wait_devices(node, HEALTHY)
        answer = kubelet_side.allocate("nic-2", "nic-0")
        assert dict(answer.envs) == {"VDPA_IO_NIC": "nic-2,nic-0",
                                     "VDPA_IO_NIC_SOCKETS": "/run/vdpa/nic-2/vhost.sock,/run/vdpa/nic-0/vhost.sock"}
        assert [(m.container_path, m.host_path, m.read_only) for m in answer.mounts] == [
            (f"/run/vdpa/{d}", f"{node.directory}/run/devices/{d}", True) for d in ("nic-2", "nic-0")]
        info = json.loads((node.devinfo / "vdpa.io-nic-nic-2-device.json").read_text())
        assert info["vhost-user"] == {"mode": "client", "path": "/run/vdpa/nic-2/vhost.sock"}


def test_every_device_has_device_information(node):
    node.config.write_text(config_text(("nic", 100), ("slow", 64)))   # more than are written in one batch
    expected = {f"vdpa.io-{name}-{name}-{n}-device.json" for name, count in (("nic", 100), ("slow", 64))
                for n in range(count)}
    with node.plugin():
        wait_until(lambda: node.devinfo.is_dir() and {f.name for f in node.devinfo.iterdir()} == expected,
                   lambda: f"{len(expected)} files; {sorted(f.name for f in node.devinfo.glob('*'))}")


@pytest.mark.parametrize("ids,words", [(("nic-9",), ["no device nic-9", "delete the pod"]),
                                       (("nic-0", "nic-0"), ["nic-0", "twice"]),
                                       (("nic-1",), ["nic-1", "unhealthy", "engine is gone"])])
def test_allocate_refuses_with_words(node, ids, words):
    with node.plugin():
        wait_devices(node, HEALTHY)
        node.datapath.report("nic-1", False, "the engine is gone")
        kubelet_side = wait_devices(node, HEALTHY | {"nic-1": "Unhealthy"})
        with pytest.raises(grpc.RpcError) as refused:
            kubelet_side.allocate(*ids)
        for word in words:
            assert word in refused.value.details()


def test_preferred_allocation_is_in_natural_order_with_what_must_be(node):
    node.config.write_text(config_text(("nic", 12)))
    with node.plugin():
        kubelet_side = node.kubelet.wait_plugin()
        assert kubelet_side.prefer(["nic-10", "nic-2", "nic-11"], size=2) == ["nic-2", "nic-10"]
        assert kubelet_side.prefer(["nic-1", "nic-11", "nic-3"], must=["nic-11"], size=2) == ["nic-11", "nic-1"]
        with pytest.raises(grpc.RpcError) as refused:
            kubelet_side.prefer(["nic-1"], size=2)
        assert "only 1" in refused.value.details()


def restart(node):
    node.kubelet.restart()


def delete_socket(node):
    for path in node.kubelet.sockets():
        path.unlink(missing_ok=True)


def end_stream(node):
    node.kubelet.wait_plugin().stream.cancel()


@pytest.mark.release
@pytest.mark.parametrize("event", [restart, delete_socket, end_stream])
def test_it_registers_again_within_a_tenth_of_a_second(node, event):
    """Unless streams keep ending at once: after more than three of those in a row the plugin waits."""
    took = []
    with node.plugin():
        for _ in range(5):
            seen = wait_devices(node, HEALTHY)
            before = len(node.kubelet.registrations)
            event(node)
            began = time.monotonic()
            wait_until(lambda: len(node.kubelet.registrations) > before, "registered again", 5, 0.001)
            took.append(time.monotonic() - began)
            wait_until(lambda seen=seen: node.kubelet.wait_plugin() is not seen, "the kubelet to follow")
        wait_devices(node, HEALTHY)
    assert statistics.median(took) < 0.1, took


def test_it_outlives_many_kubelet_restarts(node):
    """A starting kubelet deletes the plugin's socket at any moment, even while it is being made."""
    with node.plugin() as plugin:
        for _ in range(200):
            wait_devices(node, HEALTHY, 30)
            before = len(node.kubelet.registrations)
            node.kubelet.restart()
            wait_until(lambda: len(node.kubelet.registrations) > before, plugin.log)


def test_it_registers_a_new_socket_when_its_own_is_deleted(node):
    with node.plugin():
        wait_devices(node, HEALTHY)
        (old,) = node.kubelet.sockets()
        before = len(node.kubelet.registrations)
        old.unlink()
        wait_until(lambda: len(node.kubelet.registrations) == before + 1, "registered again")
        (new,) = node.kubelet.sockets()
        assert new != old and node.kubelet.registrations[-1] == ("vdpa.io/nic", new.name)
        wait_devices(node, HEALTHY)


def test_it_registers_again_when_its_stream_ends(node):
    with node.plugin():
        kubelet_side = wait_devices(node, HEALTHY)
        other = channel(kubelet_side.path)   # its stream lives on while the first ends
        second = deviceplugin.DevicePluginStub(other).ListAndWatch(deviceplugin.Empty())
        next(second)
        before = len(node.kubelet.registrations)
        kubelet_side.stream.cancel()
        wait_until(lambda: len(node.kubelet.registrations) == before + 1, "registered again")
        wait_devices(node, HEALTHY)
        with pytest.raises(grpc.RpcError):   # ended before the next registration
            next(second)
        other.close()


def test_a_refused_registration_is_tried_again(node):
    node.kubelet.refusals = 3
    with node.plugin() as plugin:
        wait_devices(node, HEALTHY)
        assert len(node.kubelet.registrations) == 4
        assert "refused by the test" in plugin.log()


def test_it_waits_for_a_kubelet_that_comes_later(node):
    node.kubelet.stop()
    (node.kubelet.directory / "kubelet.sock").unlink()
    with node.plugin() as plugin:
        plugin.wait_log("waiting for the kubelet")
        node.kubelet.start()
        wait_devices(node, HEALTHY)


def test_every_stream_hears_of_changes_and_a_slow_one_holds_nobody_up(node):
    node.config.write_text(config_text(("nic", 1024)))
    many = {f"nic-{i}": "Healthy" for i in range(1024)}
    with node.plugin():
        kubelet_side = wait_devices(node, many)
        slow = kubelet_side.stub.ListAndWatch(deviceplugin.Empty())   # no process reads it
        quick = kubelet_side.stub.ListAndWatch(deviceplugin.Empty())
        next(quick)
        before = len(kubelet_side.lists)
        for i in range(50):
            node.datapath.report("nic-0", i % 2 == 1, "flapping")
        wait_until(lambda: len(kubelet_side.lists) > before, "changes on the first stream")
        wait_devices(node, many)
        assert {d.ID for d in next(quick).devices} == set(many)
        slow.cancel()
        quick.cancel()


def test_devices_are_unhealthy_while_the_datapath_is_away(node):
    node.datapath.stop()
    with node.plugin() as plugin:
        kubelet_side = wait_devices(node, UNHEALTHY)
        plugin.wait_log("cannot reach vdpa-datapath")
        with pytest.raises(grpc.RpcError) as refused:
            kubelet_side.allocate("nic-0")
        assert "vdpa-datapath" in refused.value.details()
        node.datapath.start()
        wait_devices(node, HEALTHY)
        node.datapath.stop()
        wait_devices(node, UNHEALTHY)
        node.datapath.start()
        wait_devices(node, HEALTHY)


def test_devices_are_unhealthy_while_the_datapath_hangs(node, directory):
    node.datapath.stop()
    with daemons.Datapath(directory) as hanging, node.plugin():
        wait_devices(node, HEALTHY)
        suspend(hanging.pid)
        try:
            wait_devices(node, UNHEALTHY, 30)
        finally:
            os.kill(hanging.pid, signal.SIGCONT)
        wait_devices(node, HEALTHY, 30)


def test_it_ends_when_the_kubelets_directory_goes(node):
    with node.plugin() as plugin:
        wait_devices(node, HEALTHY)
        shutil.rmtree(node.kubelet.directory)
        wait_until(lambda: not plugin.running(), plugin.log)
        assert plugin.process.returncode == 1
        assert str(node.kubelet.directory) in plugin.log().splitlines()[-1]
    node.kubelet.directory.mkdir()


def test_a_freed_device_makes_it_send_the_same_list_once_more(node):
    node.kubelet.pods["default", "a"] = "vdpa.io/nic", ["nic-0"]
    with node.plugin():
        kubelet_side = wait_devices(node, HEALTHY)
        before = len(kubelet_side.lists)
        asked = node.kubelet.questions
        wait_until(lambda: node.kubelet.questions > asked + 1, "the plugin has seen which pod holds the device")
        assert len(kubelet_side.lists) == before
        node.kubelet.pods.clear()
        wait_until(lambda: len(kubelet_side.lists) > before, "the list once more", 5)
        assert kubelet_side.lists[-1] == kubelet_side.lists[before - 1]


def test_the_configuration_is_taken_up_and_a_bad_one_refused(node):
    with node.plugin() as plugin:
        nic = wait_devices(node, HEALTHY)
        node.config.write_text("resources:\n  - name: nic\n    softwear: {}\n")
        plugin.wait_log("config.yaml:3:5: unknown key 'softwear'")
        node.config.write_text(config_text(("nic", 1), ("lan", 2)))
        wait_devices(node, {"nic-0": "Healthy"})
        wait_devices(node, {"lan-0": "Healthy", "lan-1": "Healthy"}, resource="vdpa.io/lan")
        assert node.kubelet.plugins["vdpa.io/nic"] is nic, "the bad file has withdrawn it"
        lan = node.kubelet.plugins["vdpa.io/lan"]
        node.config.write_text(config_text(("nic", 1)))
        assert lan.ended.wait(5)
        wait_until(lambda: not node.kubelet.sockets("vdpa.io/lan"), "its socket is gone")


def test_metrics_of_a_resource_that_is_offered_no_more(node):
    address = f"{own_address()}:9102"

    def metrics():
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
            return sorted(line for line in answer.read().decode().splitlines()
                          if line.startswith(("vdpa_devices", "vdpa_registered")))

    def of(resource, healthy):
        return [f'vdpa_devices{{health="Healthy",resource="vdpa.io/{resource}"}} {healthy}',
                f'vdpa_devices{{health="Unhealthy",resource="vdpa.io/{resource}"}} 0',
                f'vdpa_registered{{resource="vdpa.io/{resource}"}} 1']
    node.config.write_text(config_text(("nic", 1), ("lan", 2)))
    with DevicePlugin(node.directory, node.config, f"--metrics-address={address}"):
        wait_devices(node, {"lan-0": "Healthy", "lan-1": "Healthy"}, resource="vdpa.io/lan")
        wait_devices(node, {"nic-0": "Healthy"})
        wait_until(lambda: metrics() == sorted(of("lan", 2) + of("nic", 1)), metrics)
        node.config.write_text(config_text(("nic", 1)))
        wait_until(lambda: metrics() == of("nic", 1), metrics)


class SmallDisk:
    """A file system of 64 files at `path`, all of which fill() uses up."""

    def __init__(self, path):
        self.path = path
        self.ballast = []

    def __enter__(self):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=64", "none", self.path], check=True)
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "--lazy", self.path], check=True)

    def fill(self):
        with contextlib.suppress(OSError):
            while True:
                file = self.path / f"ballast-{len(self.ballast)}"
                file.touch()
                self.ballast.append(file)

    def free_one(self):
        self.ballast.pop().unlink()


def test_a_configuration_that_cannot_be_taken_up_whole_is_repeated(directory):
    """With a real datapath, which reports each device once."""
    node = PluginNode(directory)
    with SmallDisk(node.kubelet.directory) as disk:
        node.kubelet.start()
        with daemons.Datapath(directory) as real, node.plugin() as program:
            wait_devices(node, HEALTHY, 20)
            disk.fill()
            disk.free_one()
            node.config.write_text(config_text(("nic", 3), ("third", 1), ("other", 1)))
            wait_devices(node, {"third-0": "Healthy"}, 20, "vdpa.io/third")
            program.wait_log("cannot register vdpa.io/other with the kubelet (retrying): cannot listen on "
                             f"{node.kubelet.directory}/vdpa.io-other-")
            assert "the configuration stays as it was" not in program.log()
            real.wait_healthy("other-0")
            shown = subprocess.run([CTL, "explain", "--plugin-socket", directory / "run/plugin.sock", "other-0"],
                                   capture_output=True, text=True, timeout=20, check=False)
            assert "vdpa.io/other is not offered yet" in shown.stdout + shown.stderr
            disk.free_one()
            wait_devices(node, {"other-0": "Healthy"}, 20, "vdpa.io/other")
        disk.free_one()   # where a stopped kubelet leaves its socket
        node.kubelet.stop()


def test_a_name_is_refused_whose_ports_would_have_too_long_paths(node):
    with node.plugin() as plugin:
        wait_devices(node, HEALTHY)
        room = 107 - len(f"{node.kubelet.directory}/vdpa.io--00000000.sock")
        name = "n" * room   # the kubelet's path is short enough
        node.config.write_text(config_text((name, 2)))
        plugin.wait_log(f"/switches/vdpa.io-{name}/ports/{name}-1.sock, which has")
        plugin.wait_log("the configuration stays as it was")
        node.config.write_text(config_text((name + "n", 2)))
        plugin.wait_log(f"{node.kubelet.directory}/vdpa.io-{name}n-00000000.sock, which has 108 bytes")
        assert node.kubelet.plugins["vdpa.io/nic"].devices == HEALTHY


def test_a_configmap_changes_by_a_symbolic_link(node):
    directory = node.directory / "configmap"
    for version, ports in (("1", 1), ("2", 2)):
        (directory / f"..{version}").mkdir(parents=True)
        (directory / f"..{version}" / "config.yaml").write_text(config_text(("nic", ports)))
    (directory / "..data").symlink_to("..1")
    (directory / "config.yaml").symlink_to("..data/config.yaml")
    node.config = directory / "config.yaml"
    with node.plugin():
        wait_devices(node, {"nic-0": "Healthy"})
        (directory / "..new").symlink_to("..2")
        os.rename(directory / "..new", directory / "..data")
        wait_devices(node, {"nic-0": "Healthy", "nic-1": "Healthy"})


def test_a_second_instance_waits_for_the_first(node):
    with node.plugin("first") as first, node.plugin("second") as second:
        wait_devices(node, HEALTHY)
        wait_until(lambda: [p for p in (first, second) if "waiting until it exits" in p.log()], "one waits")
        waiting = next(p for p in (first, second) if "waiting until it exits" in p.log())
        other = second if waiting is first else first
        before = len(node.kubelet.registrations)
        assert other.stop() == 0
        wait_until(lambda: len(node.kubelet.registrations) == before + 1, "the second registers")
        wait_devices(node, HEALTHY)


def test_its_health_service_says_whether_the_kubelet_has_it(node):
    socket = node.directory / "run" / "plugin.sock"

    def probe():
        return subprocess.run([CTL, "probe", socket], capture_output=True, text=True, check=False)
    with node.plugin():
        wait_devices(node, HEALTHY)
        wait_until(lambda: probe().returncode == 0, lambda: probe().stdout + probe().stderr)
        node.kubelet.stop()
        wait_until(lambda: "NOT_SERVING" in probe().stdout, lambda: probe().stdout + probe().stderr)
        (node.kubelet.directory / "kubelet.sock").unlink()
        node.kubelet.start()
        wait_until(lambda: probe().returncode == 0, lambda: probe().stdout + probe().stderr)


def test_validate_says_what_would_be_offered(node):
    done = subprocess.run([PROGRAM, "--validate", "--config", node.config], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "vdpa.io/nic: 3 devices, nic-0 to nic-2" in done.stdout
    node.config.write_text("resources: []")
    done = subprocess.run([PROGRAM, "--validate", "--config", node.config], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{node.config}:1:12: resources has 0 entries; expected a list of 1 to 64 resources" in done.stderr
