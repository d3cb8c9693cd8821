"""kubectl vdpa, called as an operator does: as a plugin that kubectl finds in $PATH."""

import contextlib
import json
import os
import re
import signal
import subprocess
import tarfile

import pytest
import yaml
from cluster import DIRECTORY, NAMESPACE, PORTS, ROOT, network, pod, taking_part
from documents import block
from support import wait_until

PLUGIN = ROOT / "deviceplugin/ctl/kubectl-vdpa"
NETWORKS = "network-attachment-definitions"


def environment(kubeconfig=DIRECTORY / "kubeconfig"):
    return os.environ | {"KUBECONFIG": str(kubeconfig), "COLUMNS": "",
                         "PATH": f"{PLUGIN.parent}:{DIRECTORY / 'bin'}:{os.environ['PATH']}"}


def call(*arguments, status=0, **more):
    """Its standard output and standard error."""
    done = subprocess.run(["kubectl", "vdpa", *arguments], env=environment(**more), capture_output=True, text=True, timeout=150,
                          check=False)
    assert status is None or done.returncode == status, done.stdout + done.stderr
    for line in (done.stdout + done.stderr).splitlines():
        assert len(line) <= 80 or "json" in arguments, line
    return done.stdout, done.stderr


def rows(text):
    """The cells of a table, by its first line's titles."""
    title, *lines = text.splitlines()
    starts = [i for i, c in enumerate(title) if c != " " and (i == 0 or title[i - 2:i] == "  ")]
    names = [title[a:b].strip() for a, b in zip(starts, [*starts[1:], None])]
    found = []
    for line in lines:
        if line.startswith(" "):   # a continuation or a note
            continue
        cells = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None])]
        found.append(dict(zip(names, cells)))
    return found


def test_status_devices_and_attachments(cluster):
    cluster.apply(pod("app"))
    cluster.wait_running("app")
    device = cluster.device_of("app")
    out, err = call("status")
    [row] = rows(out)
    assert (row["NODE"], row["STATE"], row["RESOURCE"]) == ("node1", "ready", "vdpa.io/nic") and not err
    [found] = json.loads(call("status", "-o", "json")[0])
    assert (found["version"], found["remarks"]) == ("0.2.0", [])
    assert found["resources"] == [{"resource": "vdpa.io/nic", "devices": PORTS, "free": PORTS - 1, "used": 1, "faulty": 0}]

    found = {row["DEVICE"]: (row["STATE"], row["POD"]) for row in rows(call("devices")[0])}
    assert found == {f"nic-{i}": ("free", "-") for i in range(PORTS)} | {device: ("attached", "default/app")}

    [row] = rows(call("attachments")[0])
    assert (row["NODE"], row["DEVICE"], row["POD"], row["STATE"]) == ("node1", device, "default/app", "waiting")
    assert row["NETWORK"].endswith("fast (net1)")
    [found] = json.loads(call("attachments", "-o", "json")[0])
    assert found["node"] == "node1" and found["mac"]


def test_explain(cluster):
    out, _ = call("explain", "nic-1")
    [row] = rows(out)
    assert (row["NODE"], row["DEVICE"], row["WHAT"]) == ("node1", "nic-1", "software port")
    assert "configured" in out
    assert len(json.loads(call("explain", "-o", "json")[0])) >= PORTS
    _, err = call("explain", "nic-77", status=1)
    assert err.startswith("node1: ") and "no device on this node has the ID nic-77" in " ".join(err.split())


def test_nodes_that_cannot_answer_are_named_and_the_others_shown(cluster):
    """node2 has the label, and no datapath."""
    patch = {"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": "node1"}}}}}
    undo = {"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": None}}}}}
    cluster.run("-n", NAMESPACE, "patch", "daemonset", "vdpa-datapath", "-p", json.dumps(patch))
    cluster.run("label", "node", "node2", "vdpa.io/node=true")
    try:
        wait_until(lambda: (name := cluster.daemon("vdpa-device-plugin", "node2")) and
                   cluster.get("pod", name, NAMESPACE)["status"].get("phase") == "Running", "node2's plugin runs", 60, 0.3)
        wait_until(lambda: cluster.daemon("vdpa-datapath", "node2") is None, "no datapath on node2", 60, 0.3)
        out, err = call("devices", status=1)
        assert {row["NODE"] for row in rows(out)} == {"node1"} and len(rows(out)) == PORTS
        assert err.startswith("node2: "), err
        out, _ = call("status", status=1)
        assert {row["NODE"]: row["STATE"] for row in rows(out)} == {"node1": "ready", "node2": "unknown"}
        assert "no vdpa-datapath pod" in " ".join(out.split())
        _, err = call("status", "--node", "node3", status=1)
        assert "no node node3 with pods of vdpa-datapath; those that have some: node1, node2" in " ".join(err.split())
    finally:
        cluster.run("label", "node", "node2", "vdpa.io/node-")
        cluster.run("-n", NAMESPACE, "patch", "daemonset", "vdpa-datapath", "-p", json.dumps(undo))
        wait_until(lambda: (name := cluster.daemon("vdpa-datapath", "node1")) and cluster.ready(name, NAMESPACE),
                   "node1's datapath", 60, 0.3)
        cluster.wait_left("node2")


@pytest.fixture
def someone(cluster, tmp_path):
    """The kubeconfig of a service account without rights."""
    cluster.run("create", "serviceaccount", "someone")
    token = cluster.run("create", "token", "someone").strip()
    config = json.loads(cluster.run("config", "view", "--raw", "-o", "json"))
    config["users"][0]["user"] = {"token": token}
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    yield path
    cluster.run("delete", "serviceaccount", "someone")


def test_without_rights_or_an_installation(cluster, someone):
    _, err = call("status", status=1, kubeconfig=someone)
    err = " ".join(err.split())
    assert "pods is forbidden" in err and "kubectl auth can-i get pods" in err
    _, err = call("status", "-n", "default", status=1)
    assert "no vdpa-datapath pods in namespace default" in " ".join(err.split())


@contextlib.contextmanager
def granted(cluster, name, rules, namespace=None):
    """Gives `someone` these rules of a document, in one namespace or in the whole cluster."""
    kind, place = ("Role", {"namespace": namespace}) if namespace else ("ClusterRole", {})
    common = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name, **place}}
    cluster.apply({**common, "kind": kind, **yaml.safe_load(rules)},
                  {**common, "kind": f"{kind}Binding",
                   "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
                   "subjects": [{"kind": "ServiceAccount", "name": "someone", "namespace": "default"}]})
    try:
        yield
    finally:
        cluster.run("delete", f"{kind}/{name}".lower(), f"{kind}Binding/{name}".lower(),
                    *([f"--namespace={namespace}"] if namespace else []))


def test_the_documented_rights(cluster, someone, tmp_path):
    """With those of the namespace alone, nodes cannot be read, and everything else works."""
    with granted(cluster, "vdpa-viewer", block("manifests/README.md", "rights"), NAMESPACE):
        out, err = call("devices", kubeconfig=someone)
        assert len(rows(out)) == PORTS
        assert "note: whether nodes are ready is not known" in " ".join(err.split())
        [row] = rows(call("status", kubeconfig=someone)[0])
        assert (row["NODE"], row["STATE"]) == ("node1", "ready")

        _, err = call("sysdump", str(tmp_path / "part.tar.gz"), status=1, kubeconfig=someone)
        assert re.findall(r"not in it: (\S+):", " ".join(err.split())) == [
            f"cluster/{name}.yaml" for name in ("nodes", "daemonsets", "configmaps", "events", "networks")]
        with granted(cluster, "vdpa-sysdump", block("manifests/README.md", "rights for sysdump"), NAMESPACE), \
                granted(cluster, "vdpa-sysdump", block("manifests/README.md", "rights for sysdump in the cluster")):
            out, err = call("sysdump", str(tmp_path / "dump.tar.gz"), kubeconfig=someone)
            assert "of 1 of 1 nodes" in " ".join(out.split()) and not err

        with granted(cluster, "vdpa-test", block("manifests/README.md", "rights for test"), "default"):
            found = json.loads(call("test", "-o", "json", "--seconds=0.5", "--count=10", kubeconfig=someone)[0])
        assert found["answers"] == 10
        assert left_over(cluster) == []


def left_over(cluster):
    return cluster.run("get", f"pods,{NETWORKS}", "-l", "app.kubernetes.io/name=vdpa-test", "-o", "name").split()


def test_two_pods_try_the_devices(cluster):
    found = json.loads(call("test", "-o", "json", "--seconds=1", "--count=100")[0])
    assert (found["from"], found["to"], found["resource"], found["backend"]) == ("node1", "node1", "vdpa.io/nic", "software")
    assert found["answers"] == found["requests"] == 100
    assert found["medianUs"] > 0 and found["received"] > 1000
    assert left_over(cluster) == []
    cluster.wait_allocatable("node1", PORTS)

    out, _ = call("test", "--network=fast", "--seconds=0.5", "--count=10")
    assert "10 of 10 requests answered" in out and "counted by the receiver" in " ".join(out.split())
    assert left_over(cluster) == [] and cluster.get(NETWORKS, "fast"), "the caller's own network stays"


@pytest.mark.long
def test_two_pods_try_the_way_between_two_nodes(cluster):
    """Through the uplink."""
    with taking_part(cluster, "node2"):
        found = json.loads(call("test", "--from-node=node1", "--to-node=node2", "-o", "json", "--seconds=1", "--count=100")[0])
    assert (found["from"], found["to"]) == ("node1", "node2")
    assert found["answers"] == found["requests"] == 100
    assert found["received"] > 0, found
    assert left_over(cluster) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_test_leaves_nothing(cluster, number):
    process = subprocess.Popen(["kubectl", "vdpa", "test", "--seconds=60"], env=environment(), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_until(lambda: len(left_over(cluster)) == 3, lambda: f"its pods and network: {left_over(cluster)}", 60, 0.2)
        os.killpg(process.pid, number)   # as a terminal does
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, out + err
    assert f"interrupted by {number.name}; removing the pods" in out
    assert left_over(cluster) == []


@pytest.mark.long
def test_a_test_that_cannot_run_says_why(cluster):
    cluster.apply(network("plain", resource=None), *[pod(f"holder-{i}") for i in range(PORTS - 1)])
    for i in range(PORTS - 1):
        cluster.wait_running(f"holder-{i}")
    for arguments, reason in {
        ("--network=plain",): "network plain has no annotation k8s.v1.cni.cncf.io/resourceName",
        ("--resource=vdpa.io/other",): "no node that answers has devices of vdpa.io/other; there are vdpa.io/nic",
        ("--from-node=node2",): "node node2 has no vdpa-datapath pod that answers; nodes that have: node1",
        (): "the test needs 2 free devices of vdpa.io/nic on node1; free: node1 1",
    }.items():
        _, err = call("test", *arguments, status=1)
        assert reason in " ".join(err.split())
    cluster.run("delete", NETWORKS, "plain")
    cluster.delete("holder-0", force=True)
    wait_until(lambda: sum(a["attached"] for a in cluster.vdpactl("node1", "attachments")) == 1, "a free device", 30, 0.2)
    _, err = call("test", "--image=localhost/no-such-image:1", "--timeout=15", status=1)
    assert "no-such-image" in err and left_over(cluster) == []


def test_sysdump(cluster, tmp_path):
    path = tmp_path / "dump.tar.gz"
    out, err = call("sysdump", str(path))
    assert "of 1 of 1 nodes" in " ".join(out.split()) and not err
    assert path.stat().st_mode & 0o077 == 0
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        bundle = archive.extractfile("dump/nodes/node1/bundle.tar.gz").read()
        log = archive.extractfile("dump/nodes/node1/vdpa-datapath.log").read().decode()
    assert {"cluster/pods.yaml", "cluster/networks.yaml", "cluster/events.yaml", "cluster/nodes.yaml",
            "nodes/node1/vdpa-device-plugin.log", "nodes/node1/vdpa-exporter.log"} <= names and "errors.txt" not in names
    assert bundle.startswith(b"\x1f\x8b") and "serving on" in log
    _, err = call("sysdump", str(path), status=1)
    assert "File exists" in err


def test_doctor(cluster):
    found = json.loads(call("doctor", "-o", "json", status=None)[0])
    verdicts = [check["verdict"] for check in found]
    assert {check["node"] for check in found} == {"node1"} and verdicts.count("PASS") >= 5
    out, _ = call("doctor", status=int("FAIL" in verdicts))
    assert f"{verdicts.count('PASS')} passed" in " ".join(out.split())
    for check in found:
        assert (check["text"].split()[0] in out) or check["verdict"] not in ("WARN", "FAIL"), check
    # The unprivileged container sees neither, and says which it looked for.
    elsewhere = json.loads(call("doctor", "--cni-dir=/elsewhere/bin", "--cni-conf-dir=/elsewhere/net.d", "-o", "json",
                                status=None)[0])
    texts = {check["check"]: check["text"] for check in elsewhere}
    assert "/elsewhere/bin" in texts["cni"] and "/elsewhere/net.d" in texts["multus"], texts
