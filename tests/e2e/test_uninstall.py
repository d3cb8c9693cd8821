"""Uninstalling as documented, the files left on a node, and an installation as README says. By its name, the last of these
tests."""

import re
from pathlib import Path

import pytest
from cluster import NAMESPACE, PORTS, ROOT, OnNode, attached_processes, follow, install, own_cgroups, pod, release_files
from documents import block
from support import wait_until

# As manifests/README.md lists them, with the cgroup.
LEFT = {"/run/vdpa", "/var/lib/vdpa", "/opt/cni/bin/vdpa"}
# For manifests/first-ten-minutes.md.
TRANSCRIPT = ROOT / "build/logs/first-ten-minutes.txt"
# Shared with Multus and other device plugins.
SHARED = "/run/k8s.cni.cncf.io/devinfo/dp"


@pytest.fixture(scope="module")
def installed_again(cluster):
    """For the tests after these, in whatever state they leave the cluster."""
    yield
    if cluster.get("namespace", NAMESPACE) is None or cluster.daemon("vdpa-datapath", "node1") is None:
        install(cluster, "manifests", None, ["node1"])


def topmost(paths):
    return {path for path in paths if not any(str(parent) in paths for parent in Path(path).parents)}


def typed(transcript):
    return [line for line in transcript.splitlines() if line.startswith("$ ")]


def uninstall(cluster, directory):
    output = follow(block("manifests/README.md", "uninstall"), directory)
    wait_until(lambda: cluster.get("namespace", NAMESPACE) is None, "the namespace is gone", 120, 0.2)
    cluster.wait_allocatable("node1", 0)
    return output


def test_uninstalling_as_documented_leaves_what_is_listed(cluster, files_before, installed_again, tmp_path):
    cluster.apply(pod("last"))
    cluster.wait_running("last")
    cluster.delete("last")
    release_files(tmp_path)
    assert "vdpa-switch of vdpa.io/nic" in uninstall(cluster, tmp_path)

    left = {path for path in OnNode("node1").files() - files_before if not SHARED.startswith(path)}
    devices = {path for path in left if path.startswith(SHARED) and path.endswith("-device.json")}
    assert {Path(path).name for path in devices} == {f"vdpa.io-nic-nic-{i}-device.json" for i in range(PORTS)}
    assert topmost(left - devices) == LEFT
    document = (ROOT / "manifests/README.md").read_text()
    for path in LEFT | {f"/var{SHARED}"}:
        assert f"`{path}`" in document
    assert own_cgroups(), "the limits' cgroup stays"
    assert not attached_processes(), "its processes have ended"


@pytest.mark.long
def test_readme_s_first_ten_minutes(cluster, installed_again, tmp_path):
    """From the release files to pods that exchange packets, on a cluster without the project."""
    release_files(tmp_path)
    if cluster.get("namespace", NAMESPACE):
        uninstall(cluster, tmp_path)
    cluster.run("label", "node", "node1", "vdpa.io/node-")
    # Of the earlier tests: kubectl shall say that it is created.
    cluster.run("delete", "network-attachment-definitions", "fast", "--ignore-not-found")
    OnNode("node1").run("sh", "-ec", f"cd {tmp_path}\n{block('README.md', 'load')}")
    TRANSCRIPT.parent.mkdir(parents=True, exist_ok=True)
    with TRANSCRIPT.open("w") as transcript:
        allocatable = follow(block("README.md", "install"), tmp_path, {"worker-1": "node1"}, transcript)
        assert allocatable.splitlines()[-1] == "8", allocatable
        output = follow(block("README.md", "pods"), tmp_path, transcript=transcript)
    assert typed(TRANSCRIPT.read_text()) == typed(block("manifests/first-ten-minutes.md", "transcript")), \
        f"manifests/first-ten-minutes.md has other commands than README; {TRANSCRIPT} is a new transcript"
    assert "fast created" in output
    assert re.search(r"received .*, [1-9]\d* in all", output) and "default/receiver" in output, output
    follow(block("README.md", "remove the pods"), tmp_path)
    assert cluster.phase("sender") is None and cluster.phase("receiver") is None
