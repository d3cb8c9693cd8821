"""The processes that carry the packets outlive everything above them: pods exchange packets during each step, and every lost
packet is counted."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from cluster import DIRECTORY, NAMESPACE, PORTS, ROOT, OnNode, attached_processes, network, own_cgroups, pod, started
from exchange import Exchange
from pod import Sparse
from support import wait_until

IMAGE = "localhost/vdpa:0.2.0"
NEXT_IMAGE = f"{IMAGE}-next"
# Milliseconds that packets may wait while their switch is replaced. manifests/README.md has 300 to 700, as measured on an idle
# machine.
GAP = 2000


@pytest.fixture
def exchange(cluster):
    # In a VLAN of its own, so that no other traffic of the uplink's network reaches it.
    cluster.apply(network("quiet", vlan=77))
    return Exchange(cluster)


@pytest.fixture
def image(cluster):
    """Restores the usual image for the tests after this one, even if it fails."""
    yield
    found = cluster.get("daemonset", "vdpa-datapath", NAMESPACE)["spec"]["template"]["spec"]
    if any(c["image"] != IMAGE for c in found.get("initContainers", []) + found["containers"]):
        cluster.run("-n", NAMESPACE, "set", "image", "daemonset/vdpa-datapath", f"*={IMAGE}")
        replace_pod(cluster)


def restarts(cluster, name):
    found = cluster.get("pod", name, NAMESPACE)
    return found["status"]["containerStatuses"][0]["restartCount"] if found else None


def datapath(cluster):
    return cluster.daemon("vdpa-datapath", "node1")


def wait_datapath(cluster, other_than=None, timeout=90):
    def ready():
        name = datapath(cluster)
        return name if name and name != other_than and cluster.ready(name, NAMESPACE) else None
    return wait_until(ready, lambda: cluster.run("-n", NAMESPACE, "get", "pods", check=False), timeout, 0.2)


def log(cluster):
    return cluster.run("-n", NAMESPACE, "logs", datapath(cluster), "--tail=200")


def kill(program):
    subprocess.run([ROOT / "tests/cluster/kill.sh", DIRECTORY, "node1", program], check=True, timeout=30)


def kill_switch(cluster):
    before = attached_processes()
    kill("vdpa-switch-dpd")  # its netdev is an uplink; the kernel keeps 15 bytes of a name
    wait_until(lambda: len(now := attached_processes() - before) == 1 and now, "another switch", 60, 0.05)
    wait_until(lambda: all(d["healthy"] for d in cluster.vdpactl("node1", "devices")), "the new switch is up", 60, 0.2)


def replace_pod(cluster):
    old = datapath(cluster)
    cluster.run("delete", "pod", "-n", NAMESPACE, old, timeout=60)
    wait_datapath(cluster, old)


def delete_and_apply(cluster):
    cluster.run("delete", "daemonset", "-n", NAMESPACE, "vdpa-datapath", timeout=60)
    wait_until(lambda: datapath(cluster) is None, "its pod is gone", 60, 0.2)
    cluster.apply(*[o for o in cluster.manifests() if o["metadata"]["name"] == "vdpa-datapath"])
    wait_datapath(cluster)


def kill_datapath(cluster):
    name = datapath(cluster)
    before = restarts(cluster, name)
    kill("vdpa-datapath")
    wait_until(lambda: restarts(cluster, name) == before + 1, f"{name} started again", 90, 0.2)
    wait_datapath(cluster)


def set_image(cluster, image):
    """Updates as an operator does: sets the new image and deletes the pods, one node at a time."""
    cluster.run("-n", NAMESPACE, "set", "image", "daemonset/vdpa-datapath", f"*={image}")
    replace_pod(cluster)
    found = wait_until(lambda: re.search(r"replaced vdpa-switch of vdpa.io/nic: up again after (\d+) ms, its pods after "
                                         r"(\d+) ms", log(cluster)), lambda: log(cluster), 60, 0.5)
    assert int(found[2]) <= GAP, found[0]
    return f"the switch was away for {found[1]} ms, its pods' packets for {found[2]} ms"


def step(exchange, steps, name, action):
    """The packets that the action lost, in each direction."""
    sent, to, back = exchange.settle()
    exchange.start()
    exchange.wait_passing()
    note = action(exchange.cluster)
    wait_until(lambda: exchange.states() == {"near": "running", "far": "running"}, lambda: str(exchange.states()), 60, 0.2)
    after, to_after, back_after = exchange.settle()
    lost = to_after - to + back_after - back
    steps.append((name, after - sent, lost, note or ""))
    exchange.start()
    exchange.wait_passing()
    return lost


def test_restarts_lose_nothing_and_an_engine_is_replaced_in_a_moment(cluster, image, exchange, steps):
    apps = [started(cluster, name) for name in ("near", "far")]
    pids = attached_processes()
    assert step(exchange, steps, "datapath pod deleted", replace_pod) == 0
    assert step(exchange, steps, "datapath DaemonSet deleted and applied again", delete_and_apply) == 0
    assert step(exchange, steps, "datapath killed", kill_datapath) == 0
    assert attached_processes() == pids

    assert step(exchange, steps, "update to another version: switch replaced", lambda c: set_image(c, NEXT_IMAGE)) == 0
    workers = {p for p in pids if p[1] == "vdpa-worker"}
    now = attached_processes()
    assert workers < now and len(now) == len(pids) and now != pids, "workers stay, the switch is replaced"
    versions = {a["pod"]: a["workerVersion"] for a in cluster.vdpactl("node1", "attachments")}
    assert versions == {"near": "0.2.0", "far": "0.2.0"}
    assert step(exchange, steps, "datapath pod deleted, no switch to replace", replace_pod) == 0
    assert attached_processes() == now
    assert step(exchange, steps, "update back", lambda c: set_image(c, IMAGE)) == 0

    step(exchange, steps, "switch killed", kill_switch)
    assert [started(cluster, name) for name in ("near", "far")] == apps
    cluster.wait_allocatable("node1", PORTS)


def memory_limit(pid):
    """The limit in bytes, and the cgroup that has it."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, cgroup = line.split(":", 2)
        for root, file in ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max"):
            limit = Path(root + cgroup, file)
            if controllers == ("memory" if "memory" in root else "") and limit.exists():
                return int(limit.read_text()), cgroup
    raise AssertionError(f"process {pid} has no memory limit")


def test_workers_and_switches_have_half_of_the_nodes_memory_together(exchange):
    exchange.start()
    exchange.wait_passing()
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") // 2
    limits = {memory_limit(pid) for pid, _ in attached_processes()}
    assert {limit >> 20 for limit, _ in limits} == {half >> 20}
    assert all(cgroup.endswith("/vdpa") for _, cgroup in limits)


@pytest.mark.long
def test_a_pod_that_takes_all_memory_takes_the_switch_and_not_the_node(cluster, exchange):
    """cgroup v1, as on this machine; test_hardware covers v2."""
    cluster.apply(network("sparse", vlan=78), pod("sparse", networks="sparse"))
    cluster.wait_running("sparse")
    apps = [started(cluster, name) for name in ("near", "far", "sparse")]
    [cgroup] = [c for c in own_cgroups() if (c / "memory.usage_in_bytes").exists()]
    limit = (int((cgroup / "memory.usage_in_bytes").read_text()) >> 20) + 64
    device = cluster.device_of("sparse")
    cluster.set_memory_limit(limit, "node1")
    try:
        exchange.start()
        exchange.wait_passing()
        before = attached_processes()
        with Sparse(OnNode("node1").root / f"run/vdpa/devices/{device}/vhost.sock") as front:
            front.have_allocated(lambda: attached_processes() != before)
            ended = rf"vdpa-switch of vdpa.io/nic is not running: .*, for lack of memory: .* of at most {limit} MiB together"
            wait_until(lambda: re.search(ended, log(cluster)), lambda: log(cluster), 30, 0.5)
        named = rf"was killed for lack of memory: .* without allocating it: default/sparse .* has \d+ MiB of it \({device}\)"
        assert re.search(named, log(cluster)), log(cluster)
        wait_until(lambda: len(attached_processes()) == len(before), lambda: log(cluster), 60, 0.5)
        exchange.start()   # packets in flight were lost with the switch
        exchange.wait_passing()
        assert cluster.node_ready("node1")
        assert apps == [started(cluster, name) for name in ("near", "far", "sparse")]
    finally:
        cluster.set_memory_limit(None, "node1")
    cluster.delete("sparse", force=True)
    cluster.wait_allocatable("node1", PORTS, timeout=90)


def test_a_killed_worker_ends_its_own_pods_session_alone_and_is_reported(cluster, exchange, steps):
    device = cluster.device_of("far")
    exchange.start()
    exchange.wait_passing()
    apps = [started(cluster, name) for name in ("near", "far")]
    worker = next(int(pid) for pid, name in attached_processes() if name == "vdpa-worker" and
                  f"--device={device}" in Path(f"/proc/{pid}/cmdline").read_text().split("\0"))
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: exchange.states() == {"near": "running", "far": "waiting"}, lambda: str(exchange.states()), 60, 0.2)
    assert f"vdpa-worker of {device} is not running: killed by signal 9" in log(cluster)
    assert [started(cluster, name) for name in ("near", "far")] == apps
    # Its application is not at fault, but has lost its device: it restarts, as a pod does.
    cluster.delete("far", force=True)
    exchange.launch("far")
    exchange.start()
    exchange.wait_passing()
    assert started(cluster, "near") == apps[0]
    steps.append(("worker killed", "", "", "its own pod's session ends; the others' continue"))


def test_draining_the_node_for_an_uninstallation(cluster, exchange):
    with pytest.raises(AssertionError, match="pods still have devices of this node: .*default/near"):
        cluster.vdpactl("node1", "drain")
    exchange.start()
    exchange.wait_passing()
    cluster.run("delete", "pod", "near", "far", "--wait=false")
    drained = cluster.vdpactl("node1", "drain", "--wait=60")
    assert drained["ended"] == ["vdpa-switch of vdpa.io/nic"]
    assert [what for what in drained["left"] if "cgroup" not in what] == []
    assert attached_processes() == set()
    cluster.wait_allocatable("node1", 0)
    assert {d["reason"] for d in cluster.vdpactl("node1", "devices")} == {
        "the node was drained of vDPA devices; none is offered until vdpa-datapath is restarted"}
    replace_pod(cluster)
    cluster.wait_allocatable("node1", PORTS)
