"""A third node with real VFs: pods land on it for them, and the same pod runs there and on a software node."""

import json
import subprocess

import pytest
from cluster import DIRECTORY, NAMESPACE, ROOT, network, pod, receiver, sender
from conftest import install
from support import wait_until

# On a node with these VFs they are the devices, made by the project; elsewhere software ports stand in for "nic".
CONFIG = """resources:
  - name: nic
    provision: vdpa
    devices: [{rootDevices: ["0000:41:00.0#0-1"]}]
    software: {ports: 3, uplink: {netdev: uplink0}}
  - name: vf
    provision: vdpa
    devices: [{rootDevices: ["0000:41:00.0#2-3"]}]
"""


@pytest.fixture(scope="module")
def hardware(cluster):
    node = subprocess.Popen([ROOT / "tests/cluster/hardware_node.py", DIRECTORY], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)
    try:
        assert node.stdout.readline() == "node3 is ready\n"
        install(cluster, "manifests/hardware", CONFIG, ["node1", "node3"])
        cluster.apply(network("vf", "vdpa.io/vf"))
        for resource in "nic", "vf":
            wait_until(lambda resource=resource: cluster.allocatable("node3", f"vdpa.io/{resource}") == 2,
                       lambda: describe(cluster), 300, 1)
        yield cluster
    finally:
        node.stdin.close()
        node.wait(120)
        install(cluster, "manifests", None, ["node1"])
        cluster.wait_allocatable("node1", 3)


def describe(cluster):
    return (cluster.run("describe", "node", "node3", check=False)[-3000:]
            + cluster.run("-n", NAMESPACE, "get", "pods", "-o", "wide", check=False)
            + "".join(cluster.run("-n", NAMESPACE, "logs", name, "--tail=40", check=False)
                      for daemon in ("vdpa-device-plugin", "vdpa-datapath")
                      if (name := cluster.daemon(daemon, "node3"))))


def device(cluster, name):
    return json.loads(cluster.exec(name, "sh", "-c", "cat /run/vdpa/*/device.json"))


def log_counter(cluster, name, counter="RX-packets"):
    found = [line.split(counter + ":")[1].split()[0] for line in cluster.run("logs", name, "--tail=60").splitlines()
             if counter + ":" in line]
    return int(found[-1]) if found else 0


def test_a_pod_lands_where_its_vf_is(hardware):
    wanted = pod("wants-a-vf", networks="vf", devices=0)
    wanted["spec"]["containers"][0]["resources"]["limits"]["vdpa.io/vf"] = "1"
    hardware.apply(wanted)
    hardware.wait_running("wants-a-vf", 240)
    assert hardware.get("pod", "wants-a-vf")["spec"]["nodeName"] == "node3"
    found = device(hardware, "wants-a-vf")
    assert found["backend"] == "kernel" and found["resource"] == "vdpa.io/vf" and found["numaNode"] == 1
    assert found["deviceID"] in ("0000:41:00.3", "0000:41:00.4")


def test_the_same_pod_on_vfs_and_on_software_ports_side_by_side(hardware):
    for node in "node3", "node1":
        hardware.apply(receiver(f"receiver-{node}", node=node), sender(f"sender-{node}", node=node))
    for node in "node1", "node3":
        for role in "receiver", "sender":
            hardware.wait_running(f"{role}-{node}", 240)
    assert device(hardware, "receiver-node1")["backend"] == "software"
    assert device(hardware, "receiver-node3")["backend"] == "kernel"
    for node in "node1", "node3":
        before = log_counter(hardware, f"receiver-{node}")
        wait_until(lambda node=node, before=before: log_counter(hardware, f"receiver-{node}") > before + 100,
                   lambda: hardware.run("logs", "receiver-node3", "--tail=40"), 120, 1)
    specs = [hardware.get("pod", f"receiver-{node}")["spec"]["containers"][0] for node in ("node1", "node3")]
    assert specs[0]["image"] == specs[1]["image"] and specs[0]["command"] == specs[1]["command"]
