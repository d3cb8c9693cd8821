"""vdpa-device-plugin as a process, and a node for it: a kubelet, a fake datapath and a configuration."""

import json
import subprocess

import pytest

from fake_datapath import FakeDatapath
from kubelet import Kubelet
from support import BUILD, Program, wait_until

PROGRAM = BUILD / "deviceplugin/vdpa-device-plugin"
CTL = BUILD / "deviceplugin/ctl/vdpactl"

HEALTHY = {"nic-0": "Healthy", "nic-1": "Healthy", "nic-2": "Healthy"}
UNHEALTHY = dict.fromkeys(HEALTHY, "Unhealthy")


def command(directory, config, *arguments, run_dir=None, log_level="debug", program=PROGRAM):
    """A plugin with all its files below the directory that Kubelet and Datapath use too."""
    return [program, "--config", config, "--kubelet-dir", directory / "device-plugins", "--pod-resources",
            directory / "pods.sock", "--run-dir", run_dir or directory / "run", "--devinfo-dir", directory / "devinfo",
            "--log-level", log_level, *arguments]


def software(**ports):
    """A configuration from the number of ports of each resource."""
    return {"resources": [{"name": name, "backend": "software", "software": {"ports": count}}
                          for name, count in ports.items()]}


def config_text(*resources):
    """The same from pairs of (name, ports), as text."""
    return json.dumps(software(**dict(resources)))


def write_config(directory, *resources):
    """Writes it in a folder of its own and returns the path."""
    path = directory / "etc" / "config.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"resources": resources}))
    return path


class DevicePlugin(Program):
    """Starts a plugin with the configuration at a path. With own_network it runs in a network namespace of its own: only this
    plugin then gets an injected event, and it does not see the host's netdevs."""

    def __init__(self, directory, config, *arguments, name="plugin", own_network=False, **options):
        self.config = config
        self.socket = directory / "run" / "plugin.sock"
        super().__init__(name, [*(["unshare", "--net"] if own_network else []),
                                *command(directory, config, *arguments, **options)], directory)

    def configure(self, *resources):
        self.config.write_text(json.dumps({"resources": resources}))

    def ask(self, *arguments):
        """Runs vdpactl against this plugin and returns the finished process."""
        return subprocess.run([CTL, *arguments[:1], "--plugin-socket", self.socket, *arguments[1:]], capture_output=True,
                              text=True, timeout=20, check=False)

    def explain(self, device):
        done = self.ask("explain", device)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


class PluginNode:
    def __init__(self, directory, keyed_by="path"):
        self.directory = directory
        self.config = write_config(directory)
        self.config.write_text(config_text(("nic", 3)))
        self.kubelet = Kubelet(directory, keyed_by)
        self.datapath = FakeDatapath(directory)
        self.devinfo = directory / "devinfo"

    def plugin(self, name="plugin"):
        return DevicePlugin(self.directory, self.config, name=name)

    def __enter__(self):
        self.kubelet.start()
        self.datapath.start()
        return self

    def __exit__(self, *_):
        self.kubelet.stop()
        self.datapath.stop()


def wait_devices(node, expected, timeout=5.0, resource="vdpa.io/nic"):
    node.kubelet.wait_plugin(resource)
    wait_until(lambda: resource in node.kubelet.plugins and node.kubelet.plugins[resource].devices == expected,
               lambda: f"{expected}; last seen {node.kubelet.plugins[resource].lists[-1:]}", timeout)
    return node.kubelet.plugins[resource]


# --- fixtures

@pytest.fixture
def node(directory, request):
    """A node with the kubelet's rules that the parameter names."""
    with PluginNode(directory, getattr(request, "param", "path")) as made:
        yield made
