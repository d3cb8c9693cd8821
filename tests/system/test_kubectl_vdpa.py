"""kubectl-vdpa with a kubectl that notes what it is asked to run. tests/e2e/test_kubectl_vdpa.py uses the real one."""

import json
import os
import subprocess

import pytest

from support import ROOT

DAEMONS = "vdpa-datapath", "vdpa-device-plugin", "vdpa-exporter"
KUBECTL = """#!/bin/sh
case " $* " in
*" exec "*"vdpactl --version"*) echo vdpactl 2; echo '[]'; echo '[]' ;;
*" exec "*) echo "$*" >> "$ASKED"; echo '{"checks": []}' ;;
*" pods "*" in (vdpa-datapath,vdpa-device-plugin,vdpa-exporter) "*) cat "$PODS" ;;
*) echo '{"items": []}' ;;
esac
"""


def pod(name, image):
    return {"metadata": {"name": f"{name}-1", "namespace": "vdpa-system", "labels": {"app.kubernetes.io/name": name}},
            "spec": {"nodeName": "node1", "containers": [{"name": name, "image": image}]},
            "status": {"containerStatuses": [{"name": name, "ready": True, "state": {"running": {}}}]}}


@pytest.fixture
def call(tmp_path):
    """Calls it where a node has pods with these images, by daemon; its standard output."""
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)

    def run(images, *arguments):
        (tmp_path / "pods").write_text(json.dumps({"items": [pod(*both) for both in images.items()]}))
        done = subprocess.run([ROOT / "deviceplugin/ctl/kubectl-vdpa", *arguments], capture_output=True, text=True,
                              timeout=60, check=False, env=os.environ | {
                                  "PATH": f"{tmp_path}:{os.environ['PATH']}", "PODS": str(tmp_path / "pods"),
                                  "ASKED": str(tmp_path / "asked")})
        assert done.returncode == 0, done.stderr
        return done.stdout
    return run


@pytest.mark.parametrize("options", [[], ["--cni-dir=/a/bin", "--cni-conf-dir=/a/net.d"]], ids=["usual", "other"])
def test_doctor_passes_the_nodes_directories_on(options, call, tmp_path):
    call(dict.fromkeys(DAEMONS, "localhost/vdpa"), "doctor", *options)
    [asked] = (tmp_path / "asked").read_text().splitlines()
    assert asked.partition("vdpactl doctor ")[2].split() == ["--output", "json", *options]


@pytest.mark.parametrize("daemon", ["vdpa-device-plugin", "vdpa-exporter"])
def test_a_daemon_of_another_image_is_named_and_the_node_is_ready(daemon, call):
    images = dict.fromkeys(DAEMONS, "vdpa:2") | {daemon: "vdpa:1"}
    [node] = json.loads(call(images, "status", "-o", "json"))
    remark = f"pod {daemon}-1 has the image vdpa:1, and pod vdpa-datapath-1 has vdpa:2"
    assert (node["state"], node["problems"], node["remarks"]) == ("ready", [], [remark])
    assert remark in " ".join(call(images, "status").split())
    # vdpactl compares the versions of the other daemons on the node, and does not see the exporter.
    checks = [(check["verdict"], check["text"]) for check in json.loads(call(images, "doctor", "-o", "json"))]
    assert checks == ([("WARN", remark)] if daemon == "vdpa-exporter" else [])


@pytest.mark.parametrize("daemons", [DAEMONS, DAEMONS[:2]], ids=["all", "without the exporter"])
def test_nothing_to_remark_of_daemons_of_one_image(daemons, call):
    images = dict.fromkeys(daemons, "vdpa:2")
    [node] = json.loads(call(images, "status", "-o", "json"))
    assert (node["state"], node["remarks"]) == ("ready", [])
    assert json.loads(call(images, "doctor", "-o", "json")) == []
