"""The manifests as kubectl renders them, compared with the documents: the rights that these state, and how to set the image."""

import re
import shutil
import subprocess

import pytest
from cluster import ROOT
from documents import block

# By folder, what each DaemonSet shares with its node.
SHARED = {
    "manifests": {"vdpa-datapath": {"hostNetwork", "hostPID"}, "vdpa-device-plugin": set(), "vdpa-exporter": set()},
    "manifests/hardware": {"vdpa-datapath": {"hostNetwork", "hostPID"}, "vdpa-device-plugin": {"hostNetwork"},
                           "vdpa-exporter": set()},
}
# manifests/base gives the reason beside each.
CAPABILITIES = {"vdpa-datapath": {"CHOWN", "NET_RAW", "NET_ADMIN"}, "make-cgroup": {"DAC_OVERRIDE"}}


def containers(objects):
    specs = [o["spec"]["template"]["spec"] for o in objects if o["kind"] == "DaemonSet"]
    found = {c["name"]: c for spec in specs for c in [*spec.get("initContainers", []), *spec["containers"]]}
    assert set(found) == {"vdpa-device-plugin", "vdpa-datapath", "vdpa-exporter", "install-cni", "make-cgroup"}
    return found


def privileged(objects):
    return {name for name, c in containers(objects).items() if c["securityContext"].get("privileged")}


def test_as_it_stands_no_container_is_privileged(cluster):
    objects = cluster.manifests()
    assert privileged(objects) == set()
    for name, container in containers(objects).items():
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"] is True, name
        assert context["capabilities"]["drop"] == ["ALL"], name
        assert set(context["capabilities"].get("add", [])) == CAPABILITIES.get(name, set()), name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name


def test_on_hardware_the_datapath_alone_is_privileged(cluster):
    objects = cluster.manifests("manifests/hardware")
    assert privileged(objects) == {"vdpa-datapath"}
    usual, here = (containers(o)["vdpa-device-plugin"]["securityContext"] for o in (cluster.manifests(), objects))
    assert here == usual


@pytest.mark.parametrize("folder", SHARED)
def test_each_pod_has_the_namespaces_of_the_node_that_it_needs(cluster, folder):
    sets = [o for o in cluster.manifests(folder) if o["kind"] == "DaemonSet"]
    assert {o["metadata"]["name"]: {key for key in ("hostNetwork", "hostPID", "hostIPC")
                                    if o["spec"]["template"]["spec"].get(key)} for o in sets} == SHARED[folder]


@pytest.mark.parametrize("folder", ["manifests", "manifests/hardware"])
def test_the_exporter_has_no_rights_and_one_directory(cluster, folder):
    [spec] = [o["spec"]["template"]["spec"] for o in cluster.manifests(folder)
              if o["kind"] == "DaemonSet" and o["metadata"]["name"] == "vdpa-exporter"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert spec["automountServiceAccountToken"] is False and spec["securityContext"]["runAsNonRoot"] is True
    assert [volume["hostPath"]["path"] for volume in spec["volumes"]] == ["/run/vdpa/observe"]
    [container] = spec["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert [mount["readOnly"] for mount in container["volumeMounts"]] == [True]


@pytest.mark.parametrize("file", ["datapath.yaml", "device-plugin.yaml", "exporter.yaml"])
def test_each_capability_and_host_path_is_explained_beside_it(file):
    lines = (ROOT / "manifests/base" / file).read_text().splitlines()
    wanted = [lines[i - 1] for i, line in enumerate(lines) if "hostPath:" in line]
    adding = False
    for line in lines:
        if re.search(r"^\s+add:", line):
            adding = True
        elif adding and re.search(r"^\s+- [A-Z_]+", line):
            wanted.append(line)
        elif "#" not in line:
            adding = False
    assert wanted
    assert [line for line in wanted if "#" not in line] == []


def test_the_documented_command_sets_the_image_of_every_container(cluster, tmp_path):
    install = block("manifests/README.md", "own image")
    image = re.search(r"s\|localhost/vdpa\|(\S+)\|", install)[1]
    [command] = [line for line in install.splitlines() if line.startswith("sed ")]
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True)
    for folder in "manifests", "manifests/hardware":
        assert f"kubectl apply -k {folder}" in install
        rendered = cluster.manifests(tmp_path / folder)
        assert {c["image"].rpartition(":")[0] for c in containers(rendered).values()} == {image}
