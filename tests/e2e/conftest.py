"""One cluster for the whole run, with the project installed by its manifests as an operator would."""

import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from cluster import DIRECTORY, NAMESPACE, ROOT, Cluster, network  # noqa: E402
from support import wait_until  # noqa: E402

PORTS = 3
CONFIG = f"""resources:
  - name: nic
    backend: software
    software: {{ports: {PORTS}, queuePairs: 1, mtu: 1500, uplink: {{netdev: uplink0}}}}
"""


@pytest.fixture(scope="session")
def bare_cluster():
    scripts = ROOT / "tests" / "cluster"
    subprocess.run([scripts / "down.sh", DIRECTORY], check=False, capture_output=True)
    try:
        subprocess.run([scripts / "up.sh", DIRECTORY], check=True, timeout=180)
        yield Cluster()
    finally:
        subprocess.run([scripts / "down.sh", DIRECTORY], check=True, timeout=120)


@pytest.fixture(scope="session")
def cluster(bare_cluster):
    bare_cluster.run("apply", "-k", str(ROOT / "manifests"))
    bare_cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "vdpa-config", "namespace": NAMESPACE},
                        "data": {"config.yaml": CONFIG}})
    bare_cluster.apply(network())
    bare_cluster.run("label", "node", "node1", "vdpa.io/node=true")
    bare_cluster.wait_allocatable("node1", PORTS)
    return bare_cluster


@pytest.fixture(autouse=True)
def no_pods_left(cluster):
    """Each test starts with every device free."""
    yield
    names = [p["metadata"]["name"] for p in cluster.get("pods")["items"]]
    if names:
        cluster.delete(*names, force=True)
    wait_until(lambda: not any(a["attached"] for a in cluster.vdpactl("node1", "attachments")),
               lambda: f"no attachment left: {cluster.vdpactl('node1', 'attachments')}", 30, 0.2)
