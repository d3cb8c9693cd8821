"""manifests/monitoring on the cluster: a Prometheus that scrapes by its ServiceMonitor, with its rules, as an operator would
have it. tests/system/test_monitoring.py has when each alert fires."""

import math
import os
import shutil
import string
import subprocess

import pytest
from cluster import CACHE, DIRECTORY, NAMESPACE, ROOT, SCRIPTS, follow, network, pod, receiver, release_files, sender
from documents import block
from prometheus import Prometheus, dashboard_queries, endpoints, scrape_config
from support import wait_until

NODE, NODE_ADDRESS = "node1", "198.51.100.11"
# Grafana's variables: everything, and a time within which all that the test does has happened.
VARIABLES = {"node": ".*", "resource": ".*", "namespace": ".*", "__rate_interval": "2m"}
KINDS = "servicemonitors", "prometheusrules"


def shell(commands):
    environment = os.environ | {"KUBECONFIG": str(DIRECTORY / "kubeconfig"),
                                "PATH": f"{DIRECTORY / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euc", commands], cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def kinds(cluster):
    """The operator's kinds, without an operator."""
    for kind in KINDS:
        cluster.run("apply", "--server-side", "-f", str(CACHE / "monitoring" / f"{kind}.yaml"))
    cluster.run("wait", "--for=condition=Established", "--timeout=30s",
                *[f"crd/{kind}.monitoring.coreos.com" for kind in KINDS])

    def served():
        names = cluster.run("api-resources", "--api-group=monitoring.coreos.com", "-o", "name", check=False).split()
        return set(names) == {f"{kind}.monitoring.coreos.com" for kind in KINDS}
    wait_until(served, "the new kinds", 30, 0.2)
    yield
    cluster.run("delete", "-k", str(ROOT / "manifests/monitoring"), "--ignore-not-found")
    cluster.run("delete", "crd", *[f"{kind}.monitoring.coreos.com" for kind in KINDS])


@pytest.fixture
def uplink():
    """Takes the uplink's netdev away under its name, and gives it back."""
    def rename(old, new):
        for change in ["down"], ["name", new]:
            subprocess.run(["ip", "-n", f"vdpa-{NODE}", "link", "set", old, *change], check=True)
        subprocess.run(["ip", "-n", f"vdpa-{NODE}", "link", "set", new, "up"], check=True)
    taken = []

    def take():
        rename("uplink0", "away0")
        taken.append(True)

    def give():
        if taken:
            rename("away0", "uplink0")
            taken.clear()
    take.give = give
    yield take
    give()


@pytest.fixture
def prometheus(cluster, kinds, tmp_path):
    """In the node's network, from which its pods can be reached. It scrapes every 3 s, and alerts without delay."""
    release = tmp_path / "release"
    release.mkdir()
    release_files(release)
    released, own = (sorted(line.split()[0] for line in out.splitlines()) for out in (
        follow(block("manifests/monitoring/README.md", "install from a release"), release),
        shell(block("manifests/monitoring/README.md", "install"))))
    assert released == own, "the same objects"

    def discovered():
        return list(endpoints(*(cluster.get(kind, namespace=NAMESPACE)["items"]
                                for kind in ("services", "endpointslices", "pods"))))
    targets = wait_until(discovered, "an endpoint of the Service", 30, 0.2)
    monitor = cluster.get("servicemonitor", "vdpa-exporter", NAMESPACE)
    rules = cluster.get("prometheusrule", "vdpa", NAMESPACE)["spec"]["groups"]
    for group in rules:
        for rule in group["rules"]:
            rule["for"] = "0s"
    configuration = {"global": {"evaluation_interval": "1s"}, "scrape_configs": [scrape_config(monitor, targets, "3s")]}
    with Prometheus(tmp_path, f"{NODE_ADDRESS}:9090", configuration, rules,
                    ["ip", "netns", "exec", f"vdpa-{NODE}"]) as program:
        program.wait_serving()
        yield program


def unanswered(prometheus):
    """The queries of the dashboard without an answer that is a number."""
    for panel, query, _ in dashboard_queries():
        asked = string.Template(query).substitute(VARIABLES)
        if not any(math.isfinite(value) for _, value in prometheus.query(asked)):
            yield f"{panel}: {asked}"


def attach_and_detach(cluster):
    cluster.apply(pod("short", node=NODE))
    cluster.wait_running("short")
    cluster.delete("short")


@pytest.mark.long
def test_prometheus_scrapes_the_exporter_alerts_and_answers_the_dashboard(cluster, prometheus, uplink):
    def up():
        return prometheus.query('up{job="vdpa-exporter"} == 1')
    wait_until(up, lambda: f"a scrape: {prometheus.targets()}", 30, 0.2)
    assert [labels for labels, _ in up()] == [
        {"__name__": "up", "job": "vdpa-exporter", "instance": NODE, "namespace": NAMESPACE}]

    cluster.apply(network())
    cluster.apply(receiver("rx", node=NODE), sender("tx", node=NODE))
    for name in "rx", "tx":
        cluster.wait_running(name)
    # A rate needs a value before the change: the daemon has no durations before its first attach and detach.
    attach_and_detach(cluster)
    wait_until(lambda: prometheus.query("vdpa_detach_duration_seconds_count > 0"), "the first detach", 30, 0.2)
    attach_and_detach(cluster)
    cluster.wait_traffic("rx")
    owner = f'vdpa_attachment_info{{namespace="default", pod="rx", device="{cluster.device_of("rx")}"}}'
    wait_until(lambda: prometheus.query(owner), "the pod's own name and namespace", 30, 0.2)
    assert prometheus.firing("VdpaDevicesUnhealthy") == []

    uplink()
    subprocess.run([SCRIPTS / "kill.sh", DIRECTORY, NODE, "vdpa-switch-dpd"], check=True, timeout=30)
    [alert] = wait_until(lambda: prometheus.firing("VdpaDevicesUnhealthy"), prometheus.log, 60, 0.2)
    assert (alert["instance"], alert["resource"], alert["severity"]) == (NODE, "vdpa.io/nic", "warning")
    wait_until(lambda: prometheus.firing("VdpaEngineRestarted"), prometheus.log, 60, 0.2)
    wait_until(lambda: not list(unanswered(prometheus)), lambda: "\n".join(unanswered(prometheus)), 30, 0.5)
    assert "nic-0" in shell(block("manifests/monitoring/README.md", "vdpactl"))

    uplink.give()
    wait_until(lambda: not prometheus.firing("VdpaDevicesUnhealthy"), lambda: str(cluster.vdpactl(NODE, "devices")), 90, 0.2)
    assert cluster.node_ready(NODE)


def test_an_overlay_adds_the_label_that_prometheus_selects_by(cluster, tmp_path):
    shutil.copytree(ROOT / "manifests/monitoring", tmp_path / "monitoring")
    (tmp_path / "kustomization.yaml").write_text(block("manifests/monitoring/README.md", "overlay"))
    plain, labelled = cluster.manifests("manifests/monitoring"), cluster.manifests(tmp_path)
    assert {o["kind"] for o in labelled} == {"Service", "ServiceMonitor", "PrometheusRule", "ConfigMap"}
    for before, after in zip(plain, labelled, strict=True):
        assert after["metadata"]["labels"] == before["metadata"]["labels"] | {"release": "kube-prometheus-stack"}
        assert after.get("spec") == before.get("spec"), "neither selectors nor rules change"
