"""vdpa-device-plugin as a process, and a node for it: a kubelet, the edge of a datapath, a configuration."""

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
    """With everything that it keeps below the directory, where Kubelet and Datapath have theirs."""
    return [program, "--config", config, "--kubelet-dir", directory / "device-plugins", "--pod-resources",
            directory / "pods.sock", "--run-dir", run_dir or directory / "run", "--devinfo-dir", directory / "devinfo",
            "--log-level", log_level, *arguments]


def software(**ports):
    """A configuration by the number of ports of each resource."""
    return {"resources": [{"name": name, "backend": "software", "software": {"ports": count}}
                          for name, count in ports.items()]}


def config_text(*resources):
    """The same of (name, ports), as a file has it."""
    return json.dumps(software(**dict(resources)))


def write_config(directory, *resources):
    """In a folder of its own; returns its path."""
    path = directory / "etc" / "config.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"resources": resources}))
    return path


class DevicePlugin(Program):
    """Of the configuration at a path. With own_network in a network namespace of its own: an injected event is then this
    plugin's alone, and the host's netdevs are none of its business."""

    def __init__(self, directory, config, *arguments, name="plugin", own_network=False, **options):
        self.config = config
        self.socket = directory / "run" / "plugin.sock"
        super().__init__(name, [*(["unshare", "--net"] if own_network else []),
                                *command(directory, config, *arguments, **options)], directory)

    def configure(self, *resources):
        self.config.write_text(json.dumps({"resources": resources}))

    def ask(self, *arguments):
        """vdpactl with this plugin; the finished process."""
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
    """With a kubelet of the rule that the parameter names."""
    with PluginNode(directory, getattr(request, "param", "path")) as made:
        yield made
