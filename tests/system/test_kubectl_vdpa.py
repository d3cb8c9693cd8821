"""kubectl-vdpa with a kubectl that notes what it is asked to run. tests/e2e/test_kubectl_vdpa.py uses the real one."""

import json
import os
import subprocess

import pytest

from support import ROOT

PODS = {"items": [{"metadata": {"name": f"{name}-1", "namespace": "vdpa-system", "labels": {"app.kubernetes.io/name": name}},
                   "spec": {"nodeName": "node1", "containers": [{"name": name, "image": "localhost/vdpa"}]},
                   "status": {"containerStatuses": [{"name": name, "ready": True, "state": {"running": {}}}]}}
                  for name in ("vdpa-datapath", "vdpa-device-plugin")]}
KUBECTL = """#!/bin/sh
case " $* " in
*" exec "*) echo "$*" >> "$ASKED"; echo '{"checks": []}' ;;
*" pods "*) cat "$PODS" ;;
*) echo '{"items": []}' ;;
esac
"""


@pytest.mark.parametrize("options", [[], ["--cni-dir=/a/bin", "--cni-conf-dir=/a/net.d"]], ids=["usual", "other"])
def test_doctor_passes_the_nodes_directories_on(options, tmp_path):
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    (tmp_path / "pods").write_text(json.dumps(PODS))
    done = subprocess.run([ROOT / "deviceplugin/ctl/kubectl-vdpa", "doctor", *options], capture_output=True, text=True,
                          timeout=60, check=False, env=os.environ | {
                              "PATH": f"{tmp_path}:{os.environ['PATH']}", "PODS": str(tmp_path / "pods"),
                              "ASKED": str(tmp_path / "asked")})
    assert done.returncode == 0, done.stderr
    [asked] = (tmp_path / "asked").read_text().splitlines()
    assert asked.partition("vdpactl doctor ")[2].split() == ["--output", "json", *options]
