"""Third-party programs that the tests and the demo need and Debian lacks: made or downloaded once, kept in the cache."""

import os
import re
import subprocess

from steps import CACHE, say, step


def go_toolchain():
    """Adds a Go toolchain to PATH. Go itself downloads a newer one if a module requires it."""
    os.environ["PATH"] += f":/usr/local/go/bin:{CACHE}/go/usr/lib/go-1.23/bin"
    try:
        answer = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        answer = ""
    version = re.match(r"go1\.(\d+)", answer)
    if version and int(version[1]) >= 23:
        return
    if not (CACHE / "go/usr/lib/go-1.23/bin/go").exists():
        step("go-from-debian", ["tests/cluster/go.sh", f"{CACHE}/go"])


def cluster_programs():
    """Builds Kubernetes and Multus."""
    go_toolchain()
    if not (CACHE / "cluster/bin/.stamp").exists():
        say("compiling Kubernetes and Multus from their sources: about ten minutes, once")
    step("cluster-programs", ["tests/cluster/build.sh", f"{CACHE}/cluster"])


def cni_programs():
    """Builds the CNI plugins and cnitool: Debian's are older than CNI 1.1.0, and without cnitool."""
    go_toolchain()
    step("cni-programs", ["tests/cluster/cni-programs.sh", f"{CACHE}/cni", f"{CACHE}/cluster/go"])


def helm():
    """Builds Helm, kustomize and Node Feature Discovery's reader of feature files."""
    go_toolchain()
    step("helm", ["tests/cluster/helm.sh", f"{CACHE}/helm", f"{CACHE}/cluster/go"])


def monitoring_kinds():
    """Fetches the definitions of the Prometheus operator's kinds."""
    go_toolchain()
    step("monitoring-kinds", ["tests/cluster/monitoring-kinds.sh", f"{CACHE}/monitoring", f"{CACHE}/cluster/go"])


def vm_setup():
    """Sets up the machine with emulated SR-IOV NICs."""
    if not (CACHE / "vm/kernel/vdpa_sim").is_dir():
        say("downloading QEMU and Linux for the test machine: three minutes, once")
    step("vm-setup", ["tests/vm/setup.sh", f"{CACHE}/vm"])


def previous_release():
    """Builds the programs of the previous release, from its commit."""
    step("previous-release", ["tests/neighbour/build.sh", f"{CACHE}/releases"])
