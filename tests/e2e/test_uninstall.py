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


@pytest.fixture
def installed_again(cluster):
    """For the tests after these, in whatever state they leave the cluster."""
    yield
    if cluster.get("namespace", NAMESPACE) is None or cluster.daemon("vdpa-datapath", "node1") is None:
        install(cluster, "manifests", None, ["node1"])


def topmost(paths):
    return {path for path in paths if not any(str(parent) in paths for parent in Path(path).parents)}


def uninstall(cluster, directory):
    release_files(cluster, directory)
    output = follow(block("manifests/README.md", "uninstall"), directory)
    wait_until(lambda: cluster.get("namespace", NAMESPACE) is None, "the namespace is gone", 120, 0.2)
    cluster.wait_allocatable("node1", 0)
    return output


def test_uninstalling_as_documented_leaves_what_is_listed(cluster, files_before, installed_again, tmp_path):
    cluster.apply(pod("last"))
    cluster.wait_running("last")
    cluster.delete("last")
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


def test_readme_s_first_ten_minutes(cluster, installed_again, tmp_path):
    """From the release files to pods that exchange packets, on a cluster without the project."""
    uninstall(cluster, tmp_path)
    cluster.run("label", "node", "node1", "vdpa.io/node-")
    TRANSCRIPT.parent.mkdir(parents=True, exist_ok=True)
    with TRANSCRIPT.open("w") as transcript:
        allocatable = follow(block("README.md", "install"), tmp_path, {"worker-1": "node1"}, transcript)
        assert allocatable.splitlines()[-1] == "8", allocatable
        output = follow(block("README.md", "pods"), tmp_path, transcript=transcript)
    assert re.search(r"RX-packets: +[1-9]", output) and "default/receiver" in output, output
