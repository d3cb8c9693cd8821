"""Where pods are scheduled, which devices and files they find there, and the messages that their owners read on failure."""

import json

from cluster import PORTS, check_two_attachments, network, pod, wait_event
from support import wait_until


def test_only_the_labelled_node_offers_devices(cluster):
    assert cluster.allocatable("node1") == PORTS
    assert cluster.allocatable("node2") == 0
    cluster.apply(pod("placed"))
    cluster.wait_running("placed")
    assert cluster.get("pod", "placed")["spec"]["nodeName"] == "node1"


def test_a_pod_waits_for_a_device_and_gets_the_next_free_one(cluster):
    cluster.apply(*[pod(f"holder-{i}") for i in range(PORTS)])
    for i in range(PORTS):
        cluster.wait_running(f"holder-{i}")
    cluster.apply(pod("waiting"))
    wait_until(lambda: "Insufficient vdpa.io/nic" in cluster.events("waiting"),
               lambda: f"the scheduler's reason in: {cluster.events('waiting')}", 30, 0.2)
    assert cluster.phase("waiting") == "Pending"
    cluster.delete("holder-0")
    cluster.wait_running("waiting")


def test_an_ordinary_user_finds_socket_device_file_and_arguments(cluster):
    cluster.apply(pod("ordinary", user=4242))
    cluster.wait_running("ordinary")
    assert "uid=4242" in cluster.exec("ordinary", "id")
    variables = dict(line.split("=", 1) for line in cluster.exec("ordinary", "env").splitlines() if "=" in line)
    device = variables["VDPA_IO_NIC"]
    assert variables["VDPA_IO_NIC_SOCKETS"] == f"/run/vdpa/{device}/vhost.sock"
    described = json.loads(cluster.exec("ordinary", "cat", f"/run/vdpa/{device}/device.json"))
    assert described["deviceID"] == device
    assert described["socket"] == f"/run/vdpa/{device}/vhost.sock"
    assert described["interface"] == "net1"
    arguments = cluster.exec("ordinary", "cat", f"/run/vdpa/{device}/eal-args")
    assert arguments.startswith("--vdev=net_virtio_user") and f"path=/run/vdpa/{device}/vhost.sock" in arguments
    assert cluster.exec("ordinary", "ls", "/run/vdpa").split() == [device]   # and no other pod's
    assert "read-only" in cluster.run("exec", "ordinary", "--", "sh", "-c", f"touch /run/vdpa/{device}/x 2>&1; true").lower()


def test_init_container_and_app_container_share_the_device(cluster):
    cluster.apply(pod("with-init", init="ls /run/vdpa/*/vhost.sock"))
    cluster.wait_running("with-init")
    seen = cluster.run("logs", "with-init", "-c", "init").strip()
    assert seen == cluster.exec("with-init", "sh", "-c", "ls /run/vdpa/*/vhost.sock").strip()


def test_two_attachments_are_two_devices_with_device_info_for_both(cluster):
    cluster.apply(pod("double", networks="fast,fast", devices=2))
    cluster.wait_running("double")
    check_two_attachments(cluster, "double")


def test_a_network_without_the_resource_says_so(cluster):
    cluster.apply(network("unannotated", resource=None), pod("no-device-id", networks="unannotated"))
    wait_event(cluster, "no-device-id", "k8s.v1.cni.cncf.io/resourceName")


def test_a_wrong_setting_is_named(cluster):
    cluster.apply(network("limited", min_tx_rate=100), pod("limited", networks="limited"))
    wait_event(cluster, "limited", "min_tx_rate")
    cluster.apply(network("badvlan", vlan=5000), pod("badvlan", networks="badvlan"))
    wait_event(cluster, "badvlan", "vlan", "4094")


def test_a_resource_without_a_network_is_shown_as_held(cluster):
    cluster.apply(pod("forgotten", networks=None))
    cluster.wait_running("forgotten")
    wait_until(lambda: any(a["pod"] == "forgotten" and not a["attached"] and "no network annotation?" in a["state"]
                           for a in cluster.vdpactl("node1", "attachments")),
               lambda: str(cluster.vdpactl("node1", "attachments")), 20, 0.2)
    assert cluster.exec("forgotten", "sh", "-c", "ls /run/vdpa/*").strip() == ""


def test_removing_the_label_withdraws_the_devices(cluster):
    cluster.run("label", "node", "node1", "vdpa.io/node-")
    try:
        cluster.wait_allocatable("node1", 0, timeout=90)
    finally:
        cluster.run("label", "node", "node1", "vdpa.io/node=true", "--overwrite")
    cluster.wait_allocatable("node1", PORTS, timeout=90)
    wait_until(lambda: cluster.daemon("vdpa-datapath", "node1"), "the datapath is back", 60, 0.2)
    cluster.apply(pod("after"))
    cluster.wait_running("after")
