"""Pods as the kubelet admits them: which device each gets, and the effect of a kubelet's restart on its checkpoint."""

import json
import os
import signal
import time

import pytest

from device_plugin import HEALTHY, config_text, node, wait_devices  # noqa: F401 (a fixture)
from kubelet import Rejected
from support import suspend, wait_until


def rejected(kubelet, pod, *words):
    with pytest.raises(Rejected) as why:
        kubelet.admit(pod)
    for word in words:
        assert word in str(why.value)


def test_pods_get_healthy_devices_alone_each_another_in_the_plugin_s_order(node):
    with node.plugin():
        wait_devices(node, HEALTHY)
        node.datapath.report("nic-0", False, "the engine is gone")
        wait_devices(node, HEALTHY | {"nic-0": "Unhealthy"})
        assert [node.kubelet.admit(pod) for pod in ("a", "b")] == [["nic-1"], ["nic-2"]]
        assert node.kubelet.admit("a") == ["nic-1"], "a pod's container restarts"
        rejected(node.kubelet, "c", "Requested: 1, Available: 0")
        node.kubelet.end("a")
        assert node.kubelet.admit("c") == ["nic-1"]


def test_without_a_datapath_no_pod_is_admitted(node):
    node.datapath.stop()
    rejected(node.kubelet, "early", "cannot allocate unregistered device vdpa.io/nic")
    with node.plugin():
        wait_devices(node, dict.fromkeys(HEALTHY, "Unhealthy"))
        rejected(node.kubelet, "a", "no healthy devices present; cannot allocate unhealthy devices vdpa.io/nic")
        node.datapath.start()
        wait_devices(node, HEALTHY)
        assert node.kubelet.admit("a") == ["nic-0"]


def test_pods_keep_their_devices_over_a_restart_of_the_kubelet(node):
    with node.plugin():
        seen = wait_devices(node, HEALTHY)
        assert node.kubelet.admit("a", count=2) == ["nic-0", "nic-1"]
        node.kubelet.restart(knows_pods=False)
        wait_until(lambda: node.kubelet.wait_plugin() is not seen, "registered again")
        wait_devices(node, HEALTHY)
        assert node.kubelet.admit("b") == ["nic-2"], "the others are a's, by the checkpoint"


def test_a_plugin_that_reads_of_a_restart_late_registers_once(node):
    """The plugin finds the new kubelet before it reads that the old one ended. A pod is admitted at once; the socket stays."""
    with node.plugin() as plugin:
        wait_devices(node, HEALTHY)
        before = len(node.kubelet.registrations)
        suspend(plugin.pid)
        node.kubelet.restart()
        os.kill(plugin.pid, signal.SIGCONT)
        wait_devices(node, HEALTHY)
        served = node.kubelet.wait_plugin()
        assert node.kubelet.admit("a") == ["nic-0"]
        time.sleep(0.3)   # a pause for an event that must not happen
        assert node.kubelet.wait_plugin() is served and len(node.kubelet.registrations) == before + 1


def test_a_freed_device_is_there_for_the_next_pod_after_a_restart_of_the_kubelet(node):
    """A kubelet that has just started doesn't know which pods have ended: its checkpoint must not contain their devices. It
    rewrites the checkpoint because the plugin, which has seen the device freed, sends its list once more."""
    node.config.write_text(config_text(("nic", 1)))
    with node.plugin():
        seen = wait_devices(node, {"nic-0": "Healthy"})
        assert node.kubelet.admit("a") == ["nic-0"]
        asked = node.kubelet.questions
        wait_until(lambda: node.kubelet.questions > asked + 1, "the plugin to see that a has the device")
        node.kubelet.end("a")
        wait_until(lambda: json.loads(node.kubelet.checkpoint.read_text() or "null") == {
            "pods": [], "resources": ["vdpa.io/nic"]}, node.kubelet.checkpoint.read_text, 5)
        node.kubelet.restart(knows_pods=False)
        wait_until(lambda: node.kubelet.wait_plugin() is not seen, "registered again")
        wait_devices(node, {"nic-0": "Healthy"})
        assert node.kubelet.admit("b") == ["nic-0"]


def test_a_plugin_that_stays_away_loses_its_resource(node):
    node.kubelet.grace = 1.0
    with node.plugin() as plugin:
        wait_devices(node, HEALTHY)
        plugin.stop()
    assert node.kubelet.healthy() == set(), "allocatable is 0 at once, the capacity stays"
    wait_until(lambda: node.kubelet.healthy() is None, "the kubelet to forget it")
    with node.plugin("again"):
        wait_until(lambda: node.kubelet.healthy() == set(HEALTHY), "all of them again")
        assert node.kubelet.admit("a") == ["nic-0"]
