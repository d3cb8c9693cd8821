"""What a node tells the cluster about itself: the feature file of a real plugin and datapath, as Node Feature Discovery's own
code reads it; the nodes that its code labels by our rule; and the resources that are for some nodes."""

import json
import os
import pathlib
import subprocess

import pytest

from datapath import Datapath
from device_plugin import CTL, HEALTHY, DevicePlugin, PluginNode, config_text, wait_devices
from support import ROOT, wait_until

NFD_LABELS = pathlib.Path(os.environ.get("VDPA_CACHE", pathlib.Path.home() / ".cache" / "vdpa")) / "helm/bin/nfd-labels"
FEATURES = "/etc/kubernetes/node-feature-discovery/features.d"


@pytest.fixture
def features(directory):
    path = directory / "features.d"
    path.mkdir()
    return path


def labels(features):
    """The labels that Node Feature Discovery makes of the files in a directory: it looks in one place only."""
    script = f'mount -t tmpfs none /etc && mkdir -p {FEATURES} && mount --bind "$1" {FEATURES} && exec "$2"'
    done = subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "-", features, NFD_LABELS],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def wait_labels(features, **expected):
    wanted = {f"vdpa.io/{name.replace('_', '.')}": value for name, value in expected.items()}
    wait_until(lambda: wanted.items() <= labels(features).items(), lambda: f"{wanted}; there are {labels(features)}", 20, 0.2)


NIC = {"class": "0200", "vendor": "15b3"}
CAPABLE = NIC | {"sriov_totalvfs": "8"}
VIRTIO_NIC = {"class": "0200", "vendor": "1af4"}


@pytest.mark.parametrize("modules, devices, labelled", [
    (["vhost_vdpa"], [CAPABLE], True), (["vhost_vdpa"], [VIRTIO_NIC], True), (["vhost_vdpa"], [NIC, CAPABLE], True),
    ([], [CAPABLE, VIRTIO_NIC], False), (["vhost_vdpa"], [NIC], False), (["vhost_vdpa"], [], False),
    (["vhost_vdpa"], [NIC | {"sriov_totalvfs": "0"}], False),
    # A disk that can have VFs, and one of virtio.
    (["vhost_vdpa"], [NIC, CAPABLE | {"class": "0108"}, VIRTIO_NIC | {"class": "0100"}], False),
], ids=["SR-IOV", "virtio", "one of two", "no vDPA bus", "no SR-IOV", "no NIC", "no VFs", "disks"])
def test_node_feature_discovery_labels_nodes_with_hardware_by_the_rule(modules, devices, labelled):
    """The features have the names under which its sources kernel and pci publish them."""
    features = {"flags": {"kernel.loadedmodule": {"elements": {name: {} for name in ["e1000e", *modules]}}},
                "instances": {"pci.device": {"elements": [{"attributes": device} for device in devices]}}}
    done = subprocess.run([NFD_LABELS, ROOT / "manifests/nfd/node-feature-rule.yaml"], input=json.dumps(features),
                          capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "vdpa.io/node=true\n" if labelled else ""), done.stderr


def test_node_feature_discovery_makes_labels_of_the_node_s_state(directory, features):
    node = PluginNode(directory)
    node.kubelet.start()
    with Datapath(directory) as datapath, DevicePlugin(directory, node.config, "--features-dir", features) as plugin:
        wait_devices(node, HEALTHY, 20)
        wait_labels(features, nic_devices="3", unhealthy="0", drained="false")
        found = labels(features)
        version = subprocess.run([CTL, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
        assert found == {"vdpa.io/capable": "false", "vdpa.io/backends": "software", "vdpa.io/nic.devices": "3",
                         "vdpa.io/unhealthy": "0", "vdpa.io/drained": "false", "vdpa.io/version": version}
        node.config.write_text(config_text(("nic", 3), ("lan", 2)))
        wait_labels(features, lan_devices="2", nic_devices="3")

        subprocess.run([CTL, "--datapath-socket", datapath.run_dir / "datapath.sock", "drain"], check=True, timeout=60)
        wait_labels(features, drained="true", unhealthy="5")
        datapath.stop()
        with Datapath(directory):
            wait_labels(features, drained="false", unhealthy="0")
            assert plugin.stop() == 0
    assert list(features.iterdir()) == [], "a plugin that ends in order leaves no labels"
    node.kubelet.stop()


def test_a_node_offers_the_resources_that_are_for_it(directory):
    node = PluginNode(directory)
    node.kubelet.start()
    node.datapath.start()
    node.config.write_text("resources: [{name: nic, nodes: ['worker-*'], software: {ports: 3}},"
                           " {name: nic, nodes: ['edge-?'], software: {ports: 7}}]")
    with DevicePlugin(directory, node.config, "--node-name", "worker-3"):
        wait_devices(node, HEALTHY)
    node.kubelet.stop()
    node.datapath.stop()


def test_a_node_without_a_resource_is_ready_and_offers_nothing(directory):
    node = PluginNode(directory)
    node.kubelet.start()
    node.config.write_text("resources: [{name: nic, nodes: ['worker-*'], software: {ports: 3}}]")
    with DevicePlugin(directory, node.config, "--node-name", "control-1") as plugin:
        plugin.wait_log("is for this node, control-1: it offers nothing")
        wait_until(lambda: subprocess.run([CTL, "probe", directory / "run/plugin.sock"], capture_output=True,
                                          check=False).returncode == 0, "the plugin is ready", 20, 0.2)
        assert not node.kubelet.plugins
        # The node's turn comes with a change of the configuration.
        node.config.write_text("resources: [{name: nic, nodes: ['*'], software: {ports: 3}}]")
        node.kubelet.wait_plugin("vdpa.io/nic")
    node.kubelet.stop()


def test_labels_once_the_directory_is_there_though_nothing_else_has_changed(directory):
    node = PluginNode(directory)
    node.kubelet.start()
    later = directory / "later"
    with Datapath(directory), DevicePlugin(directory, node.config, "--features-dir", later) as plugin:
        wait_devices(node, HEALTHY, 20)
        plugin.wait_log("the node labels are not up to date")
        later.mkdir()
        wait_labels(later, nic_devices="3")
    node.kubelet.stop()
