"""Packets between pods, and the events that must not disturb them."""

import os
import signal
import subprocess

import rpc
from cluster import (DIRECTORY, NAMESPACE, PORTS, ROOT, TESTPMD, OnNode, attached_processes, network,
                     pod, receiver, sender, started, taking_part)
from support import wait_until


def two_pods(cluster):
    cluster.apply(receiver("receiver"), sender("sender"))
    cluster.wait_running("receiver")
    cluster.wait_running("sender")
    cluster.wait_traffic("receiver")


def test_packets_between_two_pods_of_one_node(cluster):
    two_pods(cluster)


def test_the_samples_run_as_they_are(cluster):
    cluster.run("create", "namespace", "samples")
    try:
        cluster.run("apply", "-n", "samples", "-f", str(ROOT / "manifests/samples"))
        cluster.run("wait", "-n", "samples", "--for=condition=Ready", "pod/sender", "pod/receiver", "--timeout=90s",
                    timeout=100)
        cluster.wait_traffic("receiver")
    finally:
        cluster.run("delete", "namespace", "samples", timeout=120)


def test_packets_across_two_nodes_through_the_uplink(cluster):
    """In both directions, untagged on the wire between them and in a VLAN."""
    cluster.apply(network("tagged", vlan=50))
    with taking_part(cluster, "node2"):
        for name in "fast", "tagged":
            cluster.apply(pod("far", TESTPMD + "--forward-mode=macswap", node="node2", networks=name),
                          pod("near", TESTPMD + "--forward-mode=flowgen", node="node1", networks=name))
            cluster.wait_running("far")
            cluster.wait_running("near")
            cluster.wait_traffic("far", node="node2")
            cluster.wait_traffic("near", node="node1")
            cluster.delete("far", "near")


def test_the_plugin_can_be_restarted_under_traffic(cluster):
    two_pods(cluster)
    before = started(cluster, "receiver"), started(cluster, "sender")
    old = cluster.daemon("vdpa-device-plugin", "node1")
    cluster.run("rollout", "restart", "-n", NAMESPACE, "daemonset/vdpa-device-plugin")
    cluster.run("rollout", "status", "-n", NAMESPACE, "daemonset/vdpa-device-plugin", "--timeout=90s", timeout=100)
    assert cluster.daemon("vdpa-device-plugin", "node1") != old
    cluster.wait_traffic("receiver")
    cluster.wait_allocatable("node1", PORTS)
    assert before == (started(cluster, "receiver"), started(cluster, "sender"))
    cluster.apply(pod("third"))
    cluster.wait_running("third")


def test_the_plugin_can_be_deleted_and_applied_again_under_traffic(cluster):
    two_pods(cluster)
    before, pids = (started(cluster, "receiver"), started(cluster, "sender")), attached_processes()
    cluster.run("delete", "daemonset", "-n", NAMESPACE, "vdpa-device-plugin", timeout=60)
    try:
        wait_until(lambda: cluster.daemon("vdpa-device-plugin", "node1") is None, "the plugin's pod is gone", 60, 0.2)
        cluster.wait_allocatable("node1", 0)
        cluster.wait_traffic("receiver")
    finally:
        cluster.apply(*[o for o in cluster.manifests() if o["metadata"]["name"] == "vdpa-device-plugin"])
    cluster.wait_allocatable("node1", PORTS)
    cluster.apply(pod("third"))
    cluster.wait_running("third")
    cluster.wait_traffic("receiver")
    assert before == (started(cluster, "receiver"), started(cluster, "sender"))
    assert pids < attached_processes(), "those of the two pods, and the third's worker"


def test_ten_kubelet_restarts_under_traffic_with_pods_coming_and_going(cluster):
    two_pods(cluster)
    before = started(cluster, "receiver"), started(cluster, "sender")
    node = OnNode("node1")
    cluster.apply(pod("guest-0"))
    cluster.wait_running("guest-0")
    for i in range(1, 11):
        guest, last = f"guest-{i}", f"guest-{i - 1}"
        if i % 3 != 0:
            cluster.delete(last)   # a device for the guest is free at once
        if i % 3 == 1:
            cluster.apply(pod(guest))   # the kubelet is working on it when it is stopped
        old = node.kubelet()
        restart = subprocess.Popen([ROOT / "tests" / "cluster" / "restart-kubelet.sh", DIRECTORY, "node1"])
        try:
            wait_until(lambda old=old: node.kubelet() != old, "a new kubelet starts", 60)
            if i % 3 != 1:
                cluster.apply(pod(guest))
            if i % 3 == 0:
                cluster.run("delete", "pod", last, "--wait=false")
            assert restart.wait(100) == 0
        finally:
            restart.kill()
        cluster.wait_running(guest)
        # The last guest may still be terminating: the next one may have got another device.
        wait_until(lambda last=last: cluster.get("pod", last) is None, f"{last} gone", 30, 0.2)
        reasons = {p["metadata"]["name"]: p["status"].get("reason") for p in cluster.get("pods")["items"]}
        assert reasons == dict.fromkeys(("receiver", "sender", guest)), "a rejected pod has a reason"
        cluster.wait_traffic("receiver")
    cluster.wait_allocatable("node1", PORTS)
    assert before == (started(cluster, "receiver"), started(cluster, "sender"))
    rejected = [e["message"] for e in cluster.get("events")["items"] if e["reason"] == "UnexpectedAdmissionError"]
    assert rejected == []


def test_a_kubelet_restarted_while_the_api_server_is_away_takes_no_pods_device(cluster):
    two_pods(cluster)
    before = started(cluster, "receiver"), started(cluster, "sender")
    pids, node = attached_processes(), OnNode("node1")
    assert len(node.held()) == 2
    api_server = int((DIRECTORY / "run" / "kube-apiserver.pid").read_text())
    os.kill(api_server, signal.SIGSTOP)
    try:
        node.run("kill", node.kubelet())
        wait_until(lambda: node.held() == [], "a kubelet that answers, but knows no pod", 60, 0.2)
        # A witness: on this kubelet's answer, an orphaned attachment would be detached.
        node.run("ip", "netns", "add", "lost")
        node.datapath.Attach(rpc.datapath.AttachRequest(device_id=node.free_device(), owner=rpc.datapath.Owner(
            container_id="lost", interface="net1", netns="/var/run/netns/lost", network="fast",
            pod_namespace="default", pod_name="lost")), timeout=30)
        node.run("ip", "netns", "del", "lost")
        wait_until(lambda: "lost" not in node.attached(), lambda: str(node.attached()), 60, 0.2)
        assert node.held() == [], "the API server is still away"
        assert node.attached().keys() == {"receiver", "sender"}
        assert not any(attachment.outlook for attachment in node.attached().values())
        packets = node.packets()
        wait_until(lambda: node.packets() >= packets + 1000, "packets", 30, 0.2)
    finally:
        os.kill(api_server, signal.SIGCONT)
    wait_until(lambda: len(node.held()) == 2, lambda: str(node.held()), 60, 0.2)
    cluster.wait_traffic("receiver")
    assert attached_processes() == pids
    assert before == (started(cluster, "receiver"), started(cluster, "sender"))
    cluster.wait_allocatable("node1", PORTS, timeout=90)
