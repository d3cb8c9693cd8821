"""vdpactl doctor and bundle on a real node: in vdpa-datapath's container, and on the node itself."""

import io
import json
import subprocess
import tarfile

from cluster import DIRECTORY, NAMESPACE, ROOT, OnNode

PROGRAM = ROOT / "build/gcc/deviceplugin/ctl/vdpactl"


def verdicts(report):
    return {check["check"]: (check["verdict"], check["text"]) for check in report["checks"]}


def test_doctor_in_the_container_and_on_the_node(cluster):
    inside = cluster.vdpactl("node1", "doctor")
    assert (inside["place"], inside["seesAll"]) == ("container", False)
    found = verdicts(inside)
    # Not mounted in an unprivileged container; everything else is right.
    assert {name for name, (verdict, _) in found.items() if verdict == "UNSEEN"} == {"cni", "multus"}, found
    assert {name for name, (verdict, _) in found.items() if verdict == "FAIL"} == set(), found

    node = OnNode("node1")
    file = DIRECTORY / "doctor.json"
    node.run("sh", "-c", f"'{PROGRAM}' doctor -o json --cni-conf-dir /var/lib/cni/net.d > '{file}' || true")
    outside = json.loads(file.read_text())
    assert (outside["place"], outside["seesAll"]) == ("node", True)
    found = verdicts(outside)
    assert {name for name, (verdict, _) in found.items() if verdict in ("UNSEEN", "FAIL")} == set(), found
    assert found["cni"][0] == found["multus"][0] == found["plugin"][0] == "PASS", found


def test_bundle_from_the_container(cluster):
    pod = cluster.daemon("vdpa-datapath", "node1")
    kubectl = [DIRECTORY / "bin/kubectl", f"--kubeconfig={cluster.kubeconfig}", "exec", "-n", NAMESPACE, pod, "--"]
    archive = subprocess.run([*kubectl, "vdpactl", "bundle", "-o", "-"], capture_output=True, check=True, timeout=60).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as bundle:
        names = {name.removeprefix("vdpa-bundle/") for name in bundle.getnames()}
        notes = bundle.extractfile("vdpa-bundle/notes.txt").read().decode()
    assert {"doctor.txt", "datapath-list.json", "plugin-list.json", "netlink/links.json", "sysfs.json"} <= names, names
    assert "kubectl -n vdpa-system logs" in notes, "it says where the logs are"
