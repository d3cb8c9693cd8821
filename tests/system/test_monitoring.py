"""manifests/monitoring: what Prometheus' own tools say of it, that it asks only for metrics that are documented, and that each
alert has its runbook. tests/e2e/test_monitoring.py runs it on a cluster."""

import json
import re
import subprocess

import pytest
import yaml

from documents import block
from prometheus import alerts, dashboard_queries, documented_metrics, groups, promql
from support import ROOT

CASES = yaml.safe_load((ROOT / "tests/system/alerts.yaml").read_text())
README = "manifests/monitoring/README.md"
OF_EVERY_SERIES = {"instance", "job"}
# Prometheus' own, with their labels.
OWN_METRICS = {"up": set(), "ALERTS": {"alertname", "alertstate"}}
USED_LABEL = re.compile(r"\$labels\.(\w+)")


def promtool(*arguments, cwd):
    done = subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_rules(directory, found):
    (directory / "rules.yaml").write_text(json.dumps({"groups": found}))


# --- the rules

def test_prometheus_accepts_the_rules(directory):
    write_rules(directory, groups())
    assert f"{len(alerts())} rules found" in promtool("check", "rules", "--lint-fatal", "rules.yaml", cwd=directory)


def test_there_are_few_alerts_and_each_is_tested_both_ways():
    assert len(alerts()) <= 15
    assert sum(len(group["rules"]) for group in groups()) == len(alerts()), "two alerts have one name"
    assert set(CASES) == set(alerts())
    for alert, cases in CASES.items():
        assert any("fires" in case for case in cases), f"{alert} fires in no test"
        assert any("silent" in case for case in cases), f"{alert} is silent in no test"


def expected(alert, case):
    """promtool's form of a case."""
    severity = alerts()[alert]["labels"]["severity"]
    moments = dict.fromkeys(case.get("silent", []), []) | case.get("fires", {})
    return {"interval": "1m", "input_series": [{"series": name, "values": values} for name, values in case["series"].items()],
            "alert_rule_test": [{"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": [
                {"exp_labels": {"severity": severity, **one["labels"]}, "exp_annotations": {"summary": one["summary"]}}
                for one in firing]} for minute, firing in moments.items()]}


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_fires_when_it_should_and_only_then(alert, directory):
    # Summaries are compared; of the other annotations only the labels that they use, below.
    rule = alerts()[alert] | {"annotations": {"summary": alerts()[alert]["annotations"]["summary"]}}
    write_rules(directory, [{"name": "vdpa", "rules": [rule]}])
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [expected(alert, c) for c in CASES[alert]]}
    (directory / "tests.yaml").write_text(json.dumps(tests))
    assert "SUCCESS" in promtool("test", "rules", "tests.yaml", cwd=directory)


@pytest.mark.parametrize("alert", alerts())
def test_annotations_use_labels_that_the_alert_has(alert):
    used = set(USED_LABEL.findall(json.dumps(alerts()[alert]["annotations"])))
    has = set().union(*(one["labels"] for case in CASES[alert] for firing in case.get("fires", {}).values() for one in firing))
    assert used <= has


def test_each_alert_has_its_runbook_and_each_runbook_its_alert():
    sections = dict(re.findall(r"^### (\S+)\n(.*?)(?=^#|\Z)", (ROOT / README).read_text(), re.MULTILINE | re.DOTALL))
    assert set(sections) == set(alerts())
    for alert, rule in alerts().items():
        assert rule["annotations"]["runbook_url"] == f"{README}#{alert.lower()}"
        assert set(re.findall(r"^- (.*?):", sections[alert], re.MULTILINE)) == {"Look at", "Do"}, alert


# --- the queries

QUERIES = [(alert, rule["expr"], [json.dumps(rule["annotations"])]) for alert, rule in alerts().items()] + \
          [(f"panel {panel!r}, query {number}", query, [legend])
           for number, (panel, query, legend) in enumerate(dashboard_queries())]


def undocumented(query, known):
    """What a query or its texts ask for that no documented metric has."""
    selected, grouped = promql(query)
    labels = set(OF_EVERY_SERIES)
    for metric, matched in selected:
        has = known.get(metric)
        if has is None:
            yield metric
            continue
        labels |= has
        yield from (f"{metric}{{{label}}}" for label in matched - has - OF_EVERY_SERIES)
    yield from grouped - labels


@pytest.mark.parametrize(("what", "query", "texts"), QUERIES, ids=[what for what, _, _ in QUERIES])
def test_a_query_asks_for_documented_metrics_and_labels_alone(what, query, texts):
    known = documented_metrics() | OWN_METRICS
    assert promql(query)[0], "selects nothing"
    assert not list(undocumented(query, known))
    labels = set(OF_EVERY_SERIES).union(*(known[metric] for metric, _ in promql(query)[0]))
    assert {name for text in texts for name in re.findall(r"\{\{(\w+)\}\}", text) + USED_LABEL.findall(text)} <= labels


@pytest.mark.parametrize(("query", "wrong"), [
    ("vdpa_upp == 0", ["vdpa_upp"]),
    ('vdpa_up{deamon="datapath"}', ["vdpa_up{deamon}"]),
    ("sum by (ressource) (vdpa_resource_devices)", ["ressource"]),
    ("vdpa_device_healthy * on (device) group_left (pdo) vdpa_attachment_info", ["pdo"]),
    ('rate(vdpa_device_drops_total{reason!~"rate|vdpa_nothing"}[5m])', []),
    ("sum without (le) (rate(vdpa_attach_duration_seconds_bucket[5m]))", []),
    ("vdpa_devices", ["vdpa_devices"]),   # deprecated
])
def test_a_wrong_name_in_a_query_is_found(query, wrong):
    assert list(undocumented(query, documented_metrics())) == wrong


# --- what README says

def test_the_configuration_without_the_operator_is_valid(directory):
    configuration = yaml.safe_load(block("manifests/monitoring/README.md", "without the operator"))
    [scrape] = configuration["scrape_configs"]
    # Debian's Prometheus is built without the discovery of Kubernetes.
    assert scrape.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"names": ["vdpa-system"]}}]
    (directory / "prometheus.yaml").write_text(json.dumps(configuration))
    promtool("check", "config", "--lint-fatal", "prometheus.yaml", cwd=directory)
