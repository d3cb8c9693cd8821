"""The Helm chart on the cluster: over an installation by kubectl, updated and rolled back under traffic, uninstalled, installed
as documented; and the admission policy. `helm` is the real one."""

import json
import subprocess

import pytest
from cluster import (CACHE, CONFIG, DIST, NAMESPACE, PORTS, ROOT, OnNode, attached_processes, follow, install, network,
                     own_cgroups, pod, receiver, release_files, sender, started)
from documents import block
from exchange import Exchange
from support import wait_until
from test_dataplane import replace_pod, step

CHART = DIST / "vdpa-0.2.0.tgz"     # the release's
HELM = CACHE / "helm" / "bin" / "helm"
# Each node has a number of devices of its own, by which its pool shows; neither pool has an uplink.
POOLS = """nodePools:
  - name: small
    nodeSelector: {kubernetes.io/hostname: node1}
    config: |
      resources: [{name: nic, backend: software, software: {ports: 2}}]
  - name: large
    nodeSelector: {kubernetes.io/hostname: node2}
    config: |
      resources: [{name: nic, backend: software, software: {ports: 5}}]
"""


def helm(cluster, *arguments, stdin=None):
    done = subprocess.run([HELM, f"--kubeconfig={cluster.kubeconfig}", "--kube-insecure-skip-tls-verify", *arguments,
                           "--namespace", NAMESPACE], input=stdin, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"helm {arguments[0]}: {done.stderr}{done.stdout}"
    return done.stdout


@pytest.fixture
def values(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    return ["--set", "uplink.enabled=true", "--set-file", f"config={tmp_path / 'config.yaml'}"]


@pytest.fixture
def installed_again(cluster):
    """The usual installation for the tests after this one, whatever a test leaves."""
    yield
    subprocess.run([HELM, f"--kubeconfig={cluster.kubeconfig}", "uninstall", "vdpa", "--ignore-not-found", "--no-hooks",
                    "--namespace", NAMESPACE], capture_output=True, timeout=100, check=False)
    install(cluster, "manifests", None, ["node1"])
    cluster.apply(network())
    cluster.wait_allocatable("node1", PORTS)


def wait_plugin(cluster, image):
    cluster.run("-n", NAMESPACE, "rollout", "status", "daemonset/vdpa-device-plugin", "--timeout=90s", timeout=100)
    found = cluster.get("pod", cluster.daemon("vdpa-device-plugin", "node1"), NAMESPACE)
    assert found["spec"]["containers"][0]["image"] == image


def update(cluster, image, *arguments):
    """As an operator updates: Helm, then the node's datapath at a chosen time."""
    helm(cluster, *arguments)
    wait_plugin(cluster, image)
    replace_pod(cluster)


def images(cluster):
    found = cluster.get("pod", cluster.daemon("vdpa-datapath", "node1"), NAMESPACE)
    return {c["image"] for c in found["spec"]["containers"]}


@pytest.mark.long
def test_helm_takes_over_updates_rolls_back_and_leaves_nothing(cluster, files_before, values, installed_again, steps):
    cluster.apply(network("quiet", vlan=77))
    exchange = Exchange(cluster)
    apps = [started(cluster, name) for name in ("near", "far")]
    usual, following = "localhost/vdpa:0.2.0", "localhost/vdpa:0.2.0-next"

    assert step(exchange, steps, "Helm takes an installation by kubectl over", lambda c: update(
        c, usual, "upgrade", "--install", "--take-ownership", "vdpa", CHART, *values)) == 0
    assert step(exchange, steps, "helm upgrade to another version", lambda c: update(
        c, following, "upgrade", "vdpa", CHART, "--reuse-values", "--set", "image.tag=0.2.0-next")) == 0
    assert images(cluster) == {following}
    assert step(exchange, steps, "helm rollback", lambda c: update(c, usual, "rollback", "vdpa", "1")) == 0
    assert images(cluster) == {usual}
    assert [started(cluster, name) for name in ("near", "far")] == apps

    # The first step of the uninstallation waits for the pods.
    notes = helm(cluster, "upgrade", "vdpa", CHART, "--reuse-values", "--set", "uninstall=true")
    assert "rollout status daemonset/vdpa-uninstall" in notes
    wait_until(lambda: "pods still have devices of this node" in cluster.run(
        "-n", NAMESPACE, "logs", "daemonset/vdpa-uninstall", "-c", "drain", check=False), "it names the pods", 60, 0.5)
    exchange.wait_passing()
    cluster.wait_allocatable("node1", 0)
    cluster.delete("near", "far")
    cluster.run("-n", NAMESPACE, "rollout", "status", "daemonset/vdpa-uninstall", "--timeout=90s", timeout=100)
    assert not attached_processes()
    helm(cluster, "uninstall", "vdpa", "--wait")
    cluster.run("delete", "namespace", NAMESPACE, timeout=120)
    left = {path for path in OnNode("node1").files() - files_before if not path.startswith("/run/k8s.cni.cncf.io")}
    left |= {path for path in OnNode("node1").files() if path.endswith("-device.json") and "vdpa.io" in path}
    assert left == set()
    assert not own_cgroups()


def datapath_rights(cluster, node):
    spec = cluster.get("pod", cluster.daemon("vdpa-datapath", node), NAMESPACE)["spec"]
    [container] = spec["containers"]
    return {"hostNetwork": spec.get("hostNetwork", False), **container["securityContext"]["capabilities"]}


def kept_processes():
    """The workers and switches of both nodes, by the host's pids. Without an uplink they are not in their node's network
    namespace, where attached_processes() looks."""
    return {pid for cgroup in own_cgroups() for pid in (cgroup / "cgroup.procs").read_text().split()}


def uninstall_alone(cluster):
    assert kept_processes(), "the switch"
    helm(cluster, "uninstall", "vdpa", "--wait", "--cascade=foreground")
    wait_until(lambda: not kept_processes(), lambda: str(kept_processes()), 60, 0.2)


def test_helm_uninstall_alone_drains_nodes_and_helm_install_serves_them_again(cluster, values, installed_again, tmp_path):
    cluster.apply(pod("last"))
    cluster.wait_running("last")
    notes = helm(cluster, "upgrade", "--install", "--take-ownership", "vdpa", CHART, *values)
    assert "kubectl label node NODE vdpa.io/node=true" in notes
    wait_plugin(cluster, "localhost/vdpa:0.2.0")
    cluster.delete("last")
    uninstall_alone(cluster)
    cluster.wait_allocatable("node1", 0)

    # As on a cluster without the project, with the values that the chart has besides the pools: without an uplink.
    cluster.run("delete", "namespace", NAMESPACE, timeout=120)
    cluster.run("label", "node", "node1", "vdpa.io/node-")
    release_files(tmp_path)
    (tmp_path / "pools.yaml").write_text(POOLS)
    try:
        cluster.run("label", "node", "node2", "vdpa.io/node=true")
        follow(block("manifests/helm/README.md", "install"), tmp_path, {
            "worker-1": "node1", "--set image.repository=registry.example/vdpa": "-f pools.yaml"})
        cluster.wait_allocatable("node1", 2, timeout=90)
        cluster.wait_allocatable("node2", 5, timeout=90)
        for node in "node1", "node2":
            assert datapath_rights(cluster, node) == {"hostNetwork": False, "drop": ["ALL"], "add": ["CHOWN"]}
        cluster.apply(receiver("receiver", node="node1"), sender("sender", node="node1"), pod("other", node="node2"))
        for name in "receiver", "sender", "other":
            cluster.wait_running(name)
        cluster.wait_traffic("receiver")
        cluster.delete("receiver", "sender", "other")
        uninstall_alone(cluster)
        cluster.wait_allocatable("node2", 0)
    finally:
        cluster.run("label", "node", "node2", "vdpa.io/node-")


def test_the_policy_refuses_a_network_without_a_resource(cluster):
    cluster.run("apply", "-f", str(ROOT / "manifests" / "policies" / "networks.yaml"))
    try:
        def refused():
            try:
                cluster.run("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(network("bare", resource=None)))
            except AssertionError as error:
                return str(error)
            return None
        # The API server takes a policy up within seconds.
        text = wait_until(refused, "the policy is in force", 60, 0.5)
        assert "network bare has type vdpa, but no resource for Multus to take a device from" in text
        assert "add the annotation k8s.v1.cni.cncf.io/resourceName" in text
        cluster.apply(network("complete"))
        other = network("other", resource=None)
        other["spec"]["config"] = '{"cniVersion": "1.0.0", "name": "other", "type": "bridge", "bridge": "vdpa"}'
        cluster.apply(other)
        cluster.run("delete", "network-attachment-definitions", "complete", "other")
    finally:
        cluster.run("delete", "-f", str(ROOT / "manifests" / "policies" / "networks.yaml"))


@pytest.mark.long
def test_from_the_previous_release_s_manifests_to_helm_under_traffic(cluster, values, installed_again, steps, tmp_path):
    """With its real programs and its own manifests."""
    version, commit = (ROOT / "tests/neighbour/previous-release").read_text().split()
    programs = CACHE / "releases" / version
    archive = subprocess.run(["git", "-C", ROOT, "archive", commit, "manifests"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", tmp_path], input=archive, check=True)
    manifests = tmp_path / "manifests"
    subprocess.run([manifests / "image/vdpa.sh", programs, tmp_path / "root"], check=True, timeout=120)
    image = f"localhost/vdpa:{version}"
    packed = tmp_path / "image.tar"
    subprocess.run(["python3", "-B", manifests / "image/archive.py", tmp_path / "root", image, packed], check=True, timeout=120)
    OnNode("node1").run("ctr", "-n", "k8s.io", "images", "import", str(packed))

    cluster.vdpactl("node1", "drain", "--wait=60")
    cluster.run("delete", "-k", str(ROOT / "manifests"), timeout=120)
    install(cluster, str(manifests), None, ["node1"])
    assert images(cluster) == {image}
    cluster.wait_allocatable("node1", PORTS)
    cluster.apply(network("quiet", vlan=77))
    exchange = Exchange(cluster)
    apps = [started(cluster, name) for name in ("near", "far")]
    assert step(exchange, steps, f"helm upgrade --install over the manifests of {version}", lambda c: update(
        c, "localhost/vdpa:0.2.0", "upgrade", "--install", "--take-ownership", "vdpa", CHART, *values)) == 0
    assert images(cluster) == {"localhost/vdpa:0.2.0"}
    assert [started(cluster, name) for name in ("near", "far")] == apps
