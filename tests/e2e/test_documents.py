"""The documents' commands and samples, as they stand, on the cluster. test_uninstall has those for an empty one."""

import re

import pytest

from cluster import CONFIG, NAMESPACE, PORTS, SAMPLE_IMAGE, TESTPMD, follow, network, pod, release_files, started
from documents import block
from exchange import Exchange
from support import wait_until


def test_the_documents_pod_runs(cluster):
    sample = block("cni/README.md", "pod")
    assert "registry.example/my-dpdk-app" in sample and "exec my-app --no-pci" in sample and "-- ..." in sample
    sample = sample.replace("registry.example/my-dpdk-app", SAMPLE_IMAGE)
    sample = sample.replace("exec my-app --no-pci", TESTPMD.partition(" $(cat")[0])
    sample = sample.replace("-- ...", "-- --total-num-mbufs=4096 --stats-period=1 --forward-mode=rxonly")
    sample = sample.replace("limits: {vdpa.io/nic: 1}", "limits: {vdpa.io/nic: 1, memory: 512Mi}")
    cluster.run("apply", "-f", "-", stdin=sample)
    try:
        cluster.wait_running("app")
        [attachment] = [a for a in cluster.vdpactl("node1", "attachments") if a["pod"] == "app"]
        assert attachment["vlan"] == 100, attachment
    finally:
        cluster.delete("app", force=True)
        cluster.apply(network())


def test_the_questions_to_a_node_have_answers(cluster, tmp_path):
    cluster.apply(pod("asked"))
    cluster.wait_running("asked")
    asked = follow(block("manifests/README.md", "vdpactl"), tmp_path)
    for word in "nic-0", "default/asked", "DROPS", "vdpa.io/nic":
        assert word in asked, asked
    looked = follow(block("manifests/troubleshoot.md", "look"), tmp_path)
    for word in "vdpa-datapath-", "default/asked", "vdpa-device-plugin":
        assert word in looked, looked
    cluster.delete("asked", force=True)


def test_a_node_is_upgraded_as_documented(cluster, tmp_path):
    cluster.apply(network("quiet", vlan=77))
    exchange = Exchange(cluster)
    before = [started(cluster, name) for name in ("near", "far")]
    release_files(tmp_path, CONFIG)
    old = cluster.daemon("vdpa-datapath", "node1")
    follow(block("manifests/README.md", "upgrade"), tmp_path, {"worker-1": "node1"})
    wait_until(lambda: (name := cluster.daemon("vdpa-datapath", "node1")) not in (None, old) and cluster.ready(name, NAMESPACE),
               lambda: cluster.run("-n", NAMESPACE, "get", "pods", "-o", "wide"), 120, 0.2)
    exchange.start()
    exchange.wait_passing()
    assert [started(cluster, name) for name in ("near", "far")] == before
    cluster.delete("near", "far", force=True)


@pytest.mark.long
def test_a_node_is_removed_as_documented(cluster, tmp_path):
    cluster.run("label", "node", "node2", "vdpa.io/node=true")
    cluster.wait_allocatable("node2", PORTS, timeout=90)
    output = follow(block("manifests/README.md", "remove a node"), tmp_path, {"worker-2": "node2"})
    assert re.search(r"vdpa-switch.* of vdpa\.io/nic", output), output
    cluster.wait_allocatable("node2", 0, timeout=90)
    cluster.wait_left("node2")
    assert cluster.allocatable("node1") == PORTS
