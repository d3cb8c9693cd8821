"""A third node with real VFs: pods that need them are scheduled there, and the same pod runs there and on a software node."""

import json
import re
import subprocess

import pytest
from cluster import DIRECTORY, NAMESPACE, ROOT, TESTPMD, install, network, pod, receiver, sender
from support import wait_until
from testpmd import COMMAND, Application

# On a node with these VFs the project makes devices of them; other nodes offer "nic" as software ports.
CONFIG = """resources:
  - name: nic
    provision: vdpa
    devices: [{rootDevices: ["0000:41:00.0#0-1"]}]
    software: {ports: 3, uplink: {netdev: uplink0}}
  - name: chardev
    provision: vdpa
    attach: vhost-vdpa
    devices: [{rootDevices: ["0000:41:00.0#2"]}]
  - name: netdev
    provision: vdpa
    attach: virtio-vdpa
    devices: [{rootDevices: ["0000:41:00.0#3"]}]
"""
GO = "/dev/shm/go"   # in a pod
OFFERED = {"nic": 2, "chardev": 1, "netdev": 1}


@pytest.fixture(scope="module")
def hardware(cluster):
    node = subprocess.Popen([ROOT / "tests/cluster/hardware_node.py", DIRECTORY], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)
    try:
        assert node.stdout.readline() == "node3 is ready\n"
        cluster.hardware_node = node
        install(cluster, "manifests/hardware", CONFIG, ["node1", "node3"])
        cluster.apply(network("chardev", "vdpa.io/chardev"), network("netdev", "vdpa.io/netdev", ipam={
            "type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.2"}]]}))
        wait_until(lambda: offered(cluster) == OFFERED, lambda: f"{offered(cluster)}\n{describe(cluster)}", 600, 2)
        yield cluster
    finally:
        node.stdin.close()
        node.wait(120)
        install(cluster, "manifests", None, ["node1"])
        cluster.wait_allocatable("node1", 3)


def offered(cluster):
    return {resource: cluster.allocatable("node3", f"vdpa.io/{resource}") for resource in OFFERED}


def describe(cluster):
    return (cluster.run("describe", "node", "node3", check=False)[-3000:]
            + cluster.run("-n", NAMESPACE, "get", "pods", "-o", "wide", check=False)
            + "".join(cluster.run("-n", NAMESPACE, "logs", name, "--tail=40", check=False)
                      for daemon in ("vdpa-device-plugin", "vdpa-datapath")
                      if (name := cluster.daemon(daemon, "node3"))))


def device(cluster, name):
    return json.loads(cluster.exec(name, "sh", "-c", "cat /run/vdpa/*/device.json"))


def log_counter(cluster, name, counter="RX-packets"):
    log = cluster.run("logs", name, "--tail=60", check=False)   # of a busy node, not each time
    found = [line.split(counter + ":")[1].split()[0] for line in log.splitlines() if counter + ":" in line]
    return int(found[-1]) if found else 0


def with_device(resource, name, *arguments, **more):
    """A pod with one such device, and its network."""
    wanted = pod(name, *arguments, networks=resource, devices=0, **more)
    wanted["spec"]["containers"][0]["resources"]["limits"][f"vdpa.io/{resource}"] = "1"
    return wanted


def held(wanted):
    """The same pod, with an application that begins once somebody writes into GO, and then polls half the time: of applications
    that take all of it, an emulated node does not come to anything else."""
    [container] = wanted["spec"]["containers"]
    container["resources"] = {"limits": container["resources"]["limits"] | {"cpu": "500m"}, "requests": {"cpu": "100m"}}
    container["command"][-1] = f"busybox mkfifo {GO} && read _ < {GO}; {container['command'][-1]}"
    return wanted


def attachment(cluster, name):
    return next(a for a in cluster.vdpactl("node3", "attachments") if a["pod"] == name)


def test_a_character_device_and_a_netdev_exchange_packets(hardware):
    """A pod that opens the VF itself answers a ping from the kernel of another pod, which has the netdev of the next VF."""
    # README describes the requirements of such a pod: the device belongs to root, and pins the pod's memory.
    answers = with_device("chardev", "answers", "ulimit -l unlimited; " + COMMAND.format(core=1), user=0)
    answers["spec"]["containers"][0]["securityContext"] = {"capabilities": {"drop": ["ALL"], "add": ["SYS_RESOURCE"]}}
    asks = with_device("netdev", "asks", user=0)
    asks["spec"]["containers"][0]["securityContext"] = {"capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]}}   # for ping
    hardware.apply(answers, asks)
    hardware.wait_running("answers", 480)
    hardware.wait_running("asks", 480)
    for name in "answers", "asks":
        assert hardware.get("pod", name)["spec"]["nodeName"] == "node3", "the only one with such a device"

    described = device(hardware, "answers")
    assert described["backend"] == "kernel" and described["resource"] == "vdpa.io/chardev"
    assert (described["deviceID"], described["numaNode"]) == ("0000:41:00.3", 1)
    assert described["socket"].startswith("/dev/vhost-vdpa-")
    assert attachment(hardware, "answers")["state"] == attachment(hardware, "asks")["state"] == "direct"
    [status] = [s for s in hardware.network_status("asks") if s["name"].endswith("/netdev")]
    assert (status["interface"], status["ips"]) == ("net1", ["10.9.0.2"])

    application = Application(lambda line: hardware.exec("answers", "sh", "-c", line))
    application.tell("set fwd icmpecho", "start")
    seen = wait_until(lambda: ping(hardware, "10.9.0.1"), lambda: application.out()[-2000:], 120, 1)
    assert "from 10.9.0.1" in seen

    hardware.delete("answers", "asks", force=True)
    wait_until(lambda: not any(a["attached"] for a in hardware.vdpactl("node3", "attachments")),
               lambda: str(hardware.vdpactl("node3", "attachments")), 120, 2)
    wait_until(lambda: offered(hardware) == OFFERED, lambda: str(offered(hardware)), 120, 2)


def ping(cluster, address):
    """Sends one ping from the pod's kernel; returns its output, or nothing."""
    out = cluster.exec("asks", "sh", "-c", f"ping -I net1 -c 1 -W 5 {address} || true")
    return out if "bytes from" in out else None


def test_the_same_pod_on_vfs_and_on_software_ports_side_by_side(hardware):
    pods = [(role, node, f"{role.__name__}-{node}") for node in ("node3", "node1") for role in (receiver, sender)]
    for role, node, name in pods:
        hardware.apply(held(role(name, node=node)))
    for _, _, name in pods:
        hardware.wait_running(name, 480)
    assert device(hardware, "receiver-node1")["backend"] == "software"
    assert device(hardware, "receiver-node3")["backend"] == "kernel"
    for _, _, name in pods:
        hardware.exec(name, "sh", "-c", f"echo > {GO}")
    for node in "node1", "node3":
        names = f"receiver-{node}", f"sender-{node}"
        before = log_counter(hardware, names[0])

        def seen(names=names):
            return "".join(f"{name}: {hardware.run('logs', name, '--tail=40')}" for name in names)
        wait_until(lambda names=names, before=before: log_counter(hardware, names[0]) > before + 100,
                   lambda node=node, before=before, seen=seen: f"{node}, {before} before\n{seen()}"
                   f"{hardware.vdpactl(node, 'attachments')}\n{hardware.log(node)[-3000:]}", 300, 2)
    specs = [hardware.get("pod", f"receiver-{node}")["spec"]["containers"][0] for node in ("node1", "node3")]
    assert specs[0]["image"] == specs[1]["image"] and specs[0]["command"] == specs[1]["command"]


@pytest.mark.long
def test_a_pod_that_takes_all_memory_ends_its_own_worker_and_is_named(hardware):
    """cgroup v2. The kernel pins the pod's memory for the VF on the worker's account: more than the workers' limit."""
    hardware.set_memory_limit(96, "node3")
    try:
        command = TESTPMD.replace("-m 128", "-m 256") + "--forward-mode=rxonly"
        hardware.apply(pod("greedy", command, node="node3"))
        named = r"vdpa-worker of (\S+) is not running: .*, for lack of memory: workers and switches have \d+ of at most " \
                r"96 MiB together, and this one serves default/greedy "
        found = wait_until(lambda: re.search(named, hardware.log("node3")), lambda: hardware.log("node3"), 240, 1)
        assert found[1] == next(a for a in hardware.vdpactl("node3", "attachments") if a["pod"] == "greedy")["device"]
        assert hardware.node_ready("node3")
        hardware.delete("greedy", force=True)
        wait_until(lambda: offered(hardware) == OFFERED, lambda: describe(hardware), 120, 1)
    finally:
        hardware.set_memory_limit(None, "node3")
    hardware.apply(receiver("modest", node="node3"))
    hardware.wait_running("modest", 480)


def workload(name, command):
    """A pod with a controller: after a reboot, a kubelet may reject a pod whose plugin is not ready yet."""
    template = pod(name, command, node="node3")
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}, "annotations": template["metadata"]["annotations"]},
            "spec": template["spec"]}}}


def running(cluster, name):
    """The workload's pod that is running and ready, or nothing."""
    return next((p["metadata"]["name"] for p in cluster.get("pods")["items"]
                 if p["metadata"]["labels"].get("app") == name and cluster.ready(p["metadata"]["name"])), None)


def records(cluster):
    """The owner records on the node's disk, by device."""
    out = cluster.exec(cluster.daemon("vdpa-datapath", "node3"), "sh", "-c",
                       "cd /var/lib/vdpa/owners; for f in *.json; do cat $f; echo; done", namespace=NAMESPACE)
    decoder, found = json.JSONDecoder(), {}
    while out.strip():
        record, end = decoder.raw_decode(out.strip())
        found[record["device"]] = record
        out = out.strip()[end:]
    return found


@pytest.mark.long
def test_pods_come_back_after_a_reboot(hardware):
    """The node loses its power without a warning."""
    names = "receives", "sends"
    hardware.apply(workload("receives", TESTPMD + "--forward-mode=rxonly"),
                   workload("sends", TESTPMD + "--forward-mode=txonly --txpkts=64 --burst=4"))
    try:
        for name in names:
            wait_until(lambda name=name: running(hardware, name), lambda: describe(hardware), 600, 2)
        old = records(hardware)
        assert len(old) == 2
        node = hardware.hardware_node
        node.stdin.write("reboot\n")
        node.stdin.flush()
        assert node.stdout.readline() == "node3 is ready\n"

        def back():
            return offered(hardware) == OFFERED and hardware.daemon("vdpa-datapath", "node3") and \
                [a["state"] for a in hardware.vdpactl("node3", "attachments")] == ["running"] * 2
        wait_until(back, lambda: describe(hardware), 420, 2)
        now = records(hardware)
        assert now.keys() == old.keys()
        assert {r["bootId"] for r in now.values()}.isdisjoint({r["bootId"] for r in old.values()})
        assert {r["owner"]["container"] for r in now.values()}.isdisjoint(
            {r["owner"]["container"] for r in old.values()})
        receives = wait_until(lambda: running(hardware, "receives"), lambda: describe(hardware), 60, 1)
        before = log_counter(hardware, receives)
        wait_until(lambda: log_counter(hardware, receives) > before + 100, lambda: hardware.run("logs", receives), 120, 1)
    finally:
        hardware.run("delete", "deployment", *names, "--ignore-not-found")
