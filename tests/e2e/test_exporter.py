"""vdpa-exporter as it is installed: by its pod's address, on a node with pods."""

import subprocess
import sys

from cluster import NAMESPACE, PORTS, OnNode
from cluster import pod as a_pod
from exporter import Metrics
from support import wait_until

FETCH = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=10).read().decode())"


def metrics_of(cluster, node):
    """What a Prometheus in the cluster would read."""
    address = cluster.get("pod", cluster.daemon("vdpa-exporter", node), NAMESPACE)["status"]["podIP"]
    done = subprocess.run(["nsenter", "-t", OnNode(node).init, "--net", sys.executable, "-c", FETCH,
                           f"http://{address}:9466/metrics"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return Metrics(done.stdout)


def test_the_pods_of_a_node_and_its_daemons(cluster):
    cluster.apply(a_pod("watched"))
    cluster.wait_running("watched")
    shown = []

    def attached():
        shown[:] = [metrics_of(cluster, "node1")]
        return shown[0].all("vdpa_resource_devices", resource="vdpa.io/nic", state="attached")[0][1] == 1
    wait_until(attached, lambda: shown[0].text, 30, 0.5)
    [metrics] = shown
    assert {labels["daemon"]: value for labels, value in metrics.all("vdpa_up")} == {"datapath": 1, "device-plugin": 1}
    assert len({labels["version"] for labels, _ in metrics.all("vdpa_build_info")}) == 1
    [(labels, _)] = metrics.all("vdpa_attachment_info")
    assert (labels["namespace"], labels["pod"], labels["interface"]) == ("default", "watched", "net1")
    assert sum(value for _, value in metrics.all("vdpa_resource_devices")) == PORTS
    assert metrics.value("vdpa_device_transmit_packets_total", device=labels["device"], resource="vdpa.io/nic") >= 0
    assert metrics.value("vdpa_cni_calls_total", command="ADD", code="0") >= 1
    assert 0 < metrics.value("vdpa_memory_used_bytes") < metrics.value("vdpa_memory_limit_bytes")
