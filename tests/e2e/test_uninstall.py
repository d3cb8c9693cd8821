"""Uninstalling as README says, the files left on a node, and a new installation. By its name, the last of these tests."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from cluster import DIRECTORY, NAMESPACE, PORTS, ROOT, OnNode, attached_processes, install, network, own_cgroups, pod
from support import wait_until

README = (ROOT / "README.md").read_text()
# As README lists them, with the cgroup.
LEFT = {"/run/vdpa", "/var/lib/vdpa", "/opt/cni/bin/vdpa"}
# Shared with Multus and other device plugins.
SHARED = "/run/k8s.cni.cncf.io/devinfo/dp"


def uninstallation():
    """README's commands."""
    [block] = [b for b in re.findall("```sh\n(.*?)```", README, re.DOTALL) if "drain" in b]
    return block


@pytest.fixture
def installed_again(cluster):
    yield
    if cluster.get("namespace", NAMESPACE) is None or cluster.daemon("vdpa-datapath", "node1") is None:
        install(cluster, "manifests", None, ["node1"])


def follow(commands):
    environment = os.environ | {"KUBECONFIG": str(DIRECTORY / "kubeconfig"),
                                "PATH": f"{DIRECTORY / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euc", commands], cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def topmost(paths):
    return {path for path in paths if not any(str(parent) in paths for parent in Path(path).parents)}


def test_uninstalling_as_readme_says_leaves_what_it_lists(cluster, files_before, installed_again):
    cluster.apply(pod("last"))
    cluster.wait_running("last")
    cluster.delete("last")
    assert "vdpa-switch of vdpa.io/nic" in follow(uninstallation())
    wait_until(lambda: cluster.get("namespace", NAMESPACE) is None, "the namespace is gone", 120, 0.2)
    cluster.wait_allocatable("node1", 0)

    left = {path for path in OnNode("node1").files() - files_before if not SHARED.startswith(path)}
    devices = {path for path in left if path.startswith(SHARED) and path.endswith("-device.json")}
    assert {Path(path).name for path in devices} == {f"vdpa.io-nic-nic-{i}-device.json" for i in range(PORTS)}
    assert topmost(left - devices) == LEFT
    for path in LEFT | {f"/var{SHARED}"}:
        assert f"`{path}`" in README
    assert own_cgroups(), "the limits' cgroup stays"
    assert not attached_processes(), "its processes have ended"

    install(cluster, "manifests", None, ["node1"])
    cluster.apply(network())
    cluster.wait_allocatable("node1", PORTS)
    cluster.apply(pod("first"))
    cluster.wait_running("first")
