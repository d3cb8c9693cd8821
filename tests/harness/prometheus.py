"""Prometheus as a process, and manifests/monitoring as it takes them: the rules, the dashboard's queries, and the configuration
that the Prometheus operator makes of a ServiceMonitor. Debian's Prometheus lacks the discovery of Kubernetes, so `endpoints`
discovers in its place, with the labels that Prometheus documents for EndpointSlices."""

import json
import re
import urllib.error
import urllib.parse
import urllib.request

import yaml

from support import ROOT, Program, wait_until

MONITORING = ROOT / "manifests/monitoring"
OPERATORS = {"and", "or", "unless", "group_left", "group_right", "bool", "offset"}
DOCUMENTED = ROOT / "deviceplugin/exporter/metrics.md"


def groups():
    """The groups of rules of the PrometheusRule."""
    return yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]["groups"]


def alerts():
    return {rule["alert"]: rule for group in groups() for rule in group["rules"]}


def dashboard_queries():
    """The panel or variable, query and legend of each query of the dashboard, as Grafana has them."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            yield variable["label"], f"count by ({label}) ({metric})", ""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target.get("legendFormat", "")


def documented_metrics():
    """The labels of each metric that the exporter's document lists, without the deprecated ones."""
    text = DOCUMENTED.read_text().split("\n## Deprecated")[0]
    found = {}
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", text, re.MULTILINE):
        has = set(re.findall(r"`(\w+)`", labels))
        found |= {name: has} if kind != "histogram" else {
            f"{name}_bucket": has | {"le"}, f"{name}_sum": has, f"{name}_count": has}
    return found


def promql(query):
    """The metrics that a query selects, each with the labels that it matches; and the labels by which it groups and joins."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', query)
    text = re.sub(r"\[[^]]*\]", "", text)
    grouping = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
    grouped = {label.strip() for labels in grouping.findall(text) for label in labels.split(",") if label.strip()}
    text = grouping.sub(" ", text)
    names = re.findall(r"(?<![\w.])([a-zA-Z_:][\w:]*)\b\s*(\{[^}]*\})?(?!\s*\()", text)
    selected = [(name, set(re.findall(r"(\w+)\s*[=!]", matchers))) for name, matchers in names if name not in OPERATORS]
    return selected, grouped


def meta(*words):
    """A label of the discovery; it replaces characters that labels may not have."""
    return re.sub("[^a-zA-Z0-9_]", "_", "_".join(["__meta_kubernetes", *words]))


def endpoints(services, slices, pods):
    """The discovered targets with their labels, from the objects of a namespace."""
    services, pods = ({o["metadata"]["name"]: o for o in found} for found in (services, pods))
    for piece in slices:
        service = services[piece["metadata"]["labels"]["kubernetes.io/service-name"]]["metadata"]
        labels = {meta("namespace"): service["namespace"], meta("service_name"): service["name"]}
        for label, value in service["labels"].items():
            labels |= {meta("service_label", label): value, meta("service_labelpresent", label): "true"}
        for endpoint in piece["endpoints"] or []:
            pod = pods[endpoint["targetRef"]["name"]]
            for port in piece["ports"]:
                [container] = [container["name"] for container in pod["spec"]["containers"] for own in container["ports"]
                               if own["containerPort"] == port["port"]]
                yield {"targets": [f"{endpoint['addresses'][0]}:{port['port']}"], "labels": labels | {
                    meta("endpointslice_port_name"): port["name"], meta("pod_name"): pod["metadata"]["name"],
                    meta("pod_container_name"): container, meta("pod_node_name"): pod["spec"]["nodeName"]}}


def scrape_config(service_monitor, discovered, interval):
    """The operator's translation of a ServiceMonitor with one endpoint, whose interval is replaced."""
    metadata, spec = service_monitor["metadata"], service_monitor["spec"]
    [endpoint] = spec["endpoints"]
    assert set(endpoint) <= {"port", "interval", "honorLabels", "relabelings"}, "the keys that are translated here"
    assert set(spec) <= {"selector", "endpoints"} and set(spec["selector"]) == {"matchLabels"}
    keep = [{"action": "keep", "source_labels": [meta("service_label", label), meta("service_labelpresent", label)],
             "regex": f"({value});true"} for label, value in spec["selector"]["matchLabels"].items()]
    keep.append({"action": "keep", "source_labels": [meta("endpointslice_port_name")], "regex": endpoint["port"]})
    labels = {"namespace": "namespace", "service": "service_name", "pod": "pod_name", "container": "pod_container_name",
              "job": "service_name"}
    copied = [{"source_labels": [meta(source)], "target_label": label} for label, source in labels.items()]
    spelled = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    own = [{spelled.get(key, key): value for key, value in rule.items()} for rule in endpoint["relabelings"]]
    return {"job_name": f"serviceMonitor/{metadata['namespace']}/{metadata['name']}/0",
            "honor_labels": endpoint["honorLabels"], "scrape_interval": interval, "scrape_timeout": interval,
            "static_configs": list(discovered),
            "relabel_configs": [*keep, *copied, {"target_label": "endpoint", "replacement": endpoint["port"]}, *own]}


class Prometheus(Program):
    """Serves until the end of the context; `command` in front of the program may enter a network namespace."""

    def __init__(self, directory, address, configuration, rules, command=()):
        self.address = address
        (directory / "rules.yaml").write_text(json.dumps({"groups": rules}))
        (directory / "prometheus.yaml").write_text(json.dumps(configuration | {"rule_files": [f"{directory}/rules.yaml"]}))
        super().__init__("prometheus", [*command, "prometheus", f"--config.file={directory}/prometheus.yaml",
                                        f"--storage.tsdb.path={directory}/data", f"--web.listen-address={address}"], directory)

    def wait_serving(self):
        def serving():
            assert self.running(), self.log()
            try:
                with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
                    return answer.status == 200
            except OSError:   # not listening yet, or loading
                return False
        wait_until(serving, lambda: f"an answer from Prometheus:\n{self.log()}", 60, 0.1)

    def _get(self, path, **query):
        try:
            with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}",
                                        timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"Prometheus on {path} {query}: {error.read().decode()}") from None

    def query(self, expression):
        """The labels and the value of each series of an instant query."""
        data = self._get("query", query=expression)
        assert data["resultType"] == "vector", f"{expression}: {data['resultType']}"
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def firing(self, alert):
        """The labels of each."""
        return [found["labels"] for found in self._get("alerts")["alerts"]
                if found["state"] == "firing" and found["labels"]["alertname"] == alert]

    def targets(self):
        return self._get("targets", state="active")["activeTargets"]
