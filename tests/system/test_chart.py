"""The Helm chart as Helm renders it, the kustomize bases made from it, and the values that it refuses."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "manifests/release"))

import pack  # noqa: E402

MANIFESTS = ROOT / "manifests"
CHART = MANIFESTS / "helm"
PROGRAMS = pathlib.Path(os.environ.get("VDPA_CACHE", pathlib.Path.home() / ".cache" / "vdpa")) / "helm" / "bin"
PLATFORMS = yaml.safe_load((CHART / "files" / "platforms.yaml").read_text())
UPLINK = "resources: [{name: nic, software: {ports: 1, uplink: {netdev: eth1}}}]"
POOLS = {"nodePools": [{"name": name, "nodeSelector": {"pool": name},
                        "config": f"resources: [{{name: {name}, software: {{ports: 1}}}}]"} for name in ("edge", "core")]}
MONITORING = {"metrics": {"monitoring": {"enabled": True}}}
EVERYTHING = {"nfd": {"enabled": True}, "policies": {"requireResourceName": True}, "uplink": {"enabled": True}, **MONITORING,
              **POOLS}


def run(*command, **options):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False, **options)


def helm(verb, values, *more):
    return run(PROGRAMS / "helm", verb, *more, CHART, "--namespace", "vdpa-system", "--values", "-", input=json.dumps(values))


def render(values=None, *more):
    done = helm("template", values or {}, *more, "vdpa")
    assert done.returncode == 0, done.stderr
    return [o for o in yaml.safe_load_all(done.stdout) if o]


def refused(values, *more):
    done = helm("template", values, *more, "vdpa")
    assert done.returncode != 0, f"rendered with {values}"
    return done.stderr


def kustomized(folder):
    done = run(PROGRAMS / "kustomize", "build", folder)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def named(objects):
    found = {(o["kind"], o["metadata"]["name"]): o for o in objects}
    assert len(found) == len(objects)
    return found


def spec_of(objects, name):
    return named(objects)["DaemonSet", name]["spec"]["template"]["spec"]


def containers(objects):
    specs = [o["spec"]["template"]["spec"] for o in objects if o["kind"] == "DaemonSet"]
    return [c for spec in specs for c in [*spec.get("initContainers", []), *spec["containers"]]]


def capabilities(objects):
    return {c["name"]: set(c["securityContext"]["capabilities"].get("add", [])) for c in containers(objects)}


def host_paths(objects, name):
    return {v["name"]: v["hostPath"]["path"] for v in spec_of(objects, name)["volumes"] if "hostPath" in v}


def test_what_is_made_from_the_chart_is_up_to_date(tmp_path):
    shutil.copytree(MANIFESTS, tmp_path / "manifests", symlinks=True)
    done = run(sys.executable, "-B", MANIFESTS / "render.py", tmp_path / "manifests")
    assert done.returncode == 0, done.stderr
    files = [path.relative_to(MANIFESTS) for path in MANIFESTS.rglob("*") if path.is_file()]
    made = {path.relative_to(tmp_path / "manifests") for path in (tmp_path / "manifests").rglob("*") if path.is_file()}
    assert made == set(files)
    differing = [str(path) for path in files if (MANIFESTS / path).read_bytes() != (tmp_path / "manifests" / path).read_bytes()]
    assert differing == [], "run manifests/render.py"


@pytest.mark.parametrize("folder, values", [("", {"uplink": {"enabled": True}}), ("hardware", {"hardware": {"enabled": True}})])
def test_chart_and_kustomization_are_the_same(folder, values):
    kustomization = named([o for o in kustomized(MANIFESTS / folder) if o["kind"] != "Namespace"])
    assert kustomization == named(render(values))
    assert len(kustomization) >= 3


def test_the_chart_s_monitoring_is_that_of_the_kustomization():
    usual, added = named(render()), named(render(MONITORING))
    assert {key: added.pop(key) for key in usual} == usual
    assert added == named(kustomized(MANIFESTS / "monitoring"))
    assert {kind for kind, _ in added} == {"Service", "ServiceMonitor", "PrometheusRule", "ConfigMap"}
    labelled = named(render({"metrics": {"monitoring": {"enabled": True, "labels": {"release": "a"}}}}))
    for key, plain in added.items():
        assert labelled[key]["metadata"]["labels"] == plain["metadata"]["labels"] | {"release": "a"}
        assert labelled[key].get("spec") == plain.get("spec"), "neither selectors nor rules change"
    assert "needs metrics.enabled=true" in refused({"metrics": {"enabled": False, **MONITORING["metrics"]}})


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("values", [{}, {"hardware": {"enabled": True}}, EVERYTHING], ids=["usual", "hardware", "everything"])
def test_every_platform_passes_the_lint_and_has_its_paths(platform, values):
    lint = helm("lint", {"platform": platform, **values}, "--strict")
    assert lint.returncode == 0, lint.stdout
    objects = render({"platform": platform, **values})
    expected = PLATFORMS["kubeadm"] | PLATFORMS[platform]
    assert expected["source"] != PLATFORMS["kubeadm"]["source"] or platform == "kubeadm"
    paths = host_paths(objects, "vdpa-datapath")
    assert {name: paths[name] for name in ("pod-resources", "netns", "cni-bin")} == {
        "pod-resources": expected["podResources"], "netns": expected["netns"], "cni-bin": expected["cniBin"]}
    plugins = [name for kind, name in named(objects) if kind == "DaemonSet" and "plugin" in name]
    assert len(plugins) == (2 if "nodePools" in values else 1)
    for plugin in plugins:
        paths = host_paths(objects, plugin)
        assert {name: paths[name] for name in ("pod-resources", "device-plugins", "device-info")} == {
            "pod-resources": expected["podResources"], "device-plugins": expected["devicePlugins"],
            "device-info": expected["deviceInfo"]}


@pytest.mark.parametrize("values", [{}, {"uninstall": True}], ids=["usual", "uninstall"])
def test_gke_s_quota_admits_the_pods_priority_class(values):
    objects = render({"platform": "gke", **values})
    [quota] = [o["spec"] for o in objects if o["kind"] == "ResourceQuota"]
    [scope] = quota["scopeSelector"]["matchExpressions"]
    assert (scope["scopeName"], scope["operator"]) == ("PriorityClass", "In")
    specs = [o["spec"]["template"]["spec"] for o in objects if o["kind"] == "DaemonSet"]
    assert {spec["priorityClassName"] for spec in specs if "priorityClassName" in spec} == set(scope["values"])
    assert quota["hard"] == {"pods": "1G"}
    assert not any(o["kind"] == "ResourceQuota" for o in render(values)), "and only there"


def selinux(values):
    specs = [o["spec"]["template"]["spec"] for o in render(values) if o["kind"] == "DaemonSet"]
    assert len(specs) == 3
    return [spec.get("securityContext", {}).get("seLinuxOptions") for spec in specs]


def test_the_selinux_type_goes_over_the_platform_s():
    assert selinux({}) == [None] * 3
    assert selinux({"seLinuxType": "spc_t"}) == [{"type": "spc_t"}] * 3
    assert selinux({"platform": "openshift", "seLinuxType": "own_t"}) == [{"type": "own_t"}] * 3


def test_a_path_goes_over_the_platform_s():
    objects = render({"platform": "k3s", "paths": {"cniBin": "/usr/libexec/cni"}})
    assert host_paths(objects, "vdpa-datapath")["cni-bin"] == "/usr/libexec/cni"


def test_without_an_uplink_the_rights_for_one_are_absent():
    for values in {}, {"uninstall": True}, POOLS:
        objects = render(values)
        assert not any("hostNetwork" in o["spec"]["template"]["spec"] for o in objects if o["kind"] == "DaemonSet")
        assert not {"NET_RAW", "NET_ADMIN"} & set().union(*capabilities(objects).values())
    with_uplink = render({"uplink": {"enabled": True}})
    assert capabilities(with_uplink)["vdpa-datapath"] == {"CHOWN", "NET_RAW", "NET_ADMIN"}
    assert spec_of(with_uplink, "vdpa-datapath")["hostNetwork"] is True
    assert "hostNetwork" not in spec_of(with_uplink, "vdpa-device-plugin")


def test_an_uplink_without_its_rights_is_refused():
    assert "config: resource nic has an uplink, but the datapath has no rights for one: set uplink.enabled=true" \
        in refused({"config": UPLINK})
    pool = [{"name": "p", "nodeSelector": {"a": "b"}, "config": UPLINK}]
    assert "config of the node pool p: resource nic has an uplink" in refused({"nodePools": pool})
    xdp = UPLINK.replace("eth1", "eth1, xdp: true")
    assert "needs hardware.enabled=true" in refused({"config": xdp, "uplink": {"enabled": True}})
    render({"config": UPLINK, "uplink": {"enabled": True}})
    render({"config": xdp, "hardware": {"enabled": True}})


@pytest.mark.parametrize("values, words", [
    ({"platform": "k3z"}, "platform"),
    ({"platfrom": "k3s"}, "platfrom"),
    ({"paths": {"cniBin": "opt/cni/bin"}}, "cniBin"),
    ({"paths": {"cni": "/opt/cni/bin"}}, "cni"),
    ({"seLinuxType": "spc t"}, "seLinuxType"),
    ({"image": {"digest": "sha256:1"}}, "digest"),
    ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ({"hardware": True}, "hardware"),
    ({"nodeSelector": {"a": True}}, "nodeSelector"),
    ({"nodePools": [{"name": "p", "config": "x"}]}, "nodeSelector"),
    ({"nodePools": [{"name": "P", "nodeSelector": {"a": "b"}, "config": "x"}]}, "name"),
    ({"config": {"resources": []}}, "config"),
    ({"config": "resources: ["}, "config: error"),
    ({"resources": {"plugin": {"cpu": 1}}}, "cpu"),
    ({"metrics": {"serviceMonitor": True}}, "serviceMonitor"),
])
def test_a_wrong_value_is_refused_by_name(values, words):
    assert words in refused(values)


def test_the_policy_is_refused_where_the_api_server_lacks_it():
    values = {"policies": {"requireResourceName": True}}
    assert "needs Kubernetes 1.30" in refused(values, "--kube-version", "1.29.4")
    assert ("ValidatingAdmissionPolicy", "vdpa-networks") in named(render(values, "--kube-version", "1.30.0"))
    assert not any("Policy" in kind for kind, _ in named(render()))


def test_nfd_adds_a_rule_and_the_plugin_s_place_for_features_alone():
    usual, added = named(render()), named(render({"nfd": {"enabled": True}}))
    assert added.pop(("NodeFeatureRule", "vdpa"))["spec"]["rules"]
    pod = added["DaemonSet", "vdpa-device-plugin"]["spec"]["template"]["spec"]
    [plugin] = pod["containers"]
    directory = "/etc/kubernetes/node-feature-discovery/features.d"   # the only one in which Node Feature Discovery looks
    for found, own in ((plugin["args"], f"--features-dir={directory}"),
                       (plugin["volumeMounts"], {"name": "features", "mountPath": directory}),
                       (pod["volumes"], {"name": "features", "hostPath": {"path": directory, "type": "DirectoryOrCreate"}})):
        assert own in found
        found.remove(own)
    assert added == usual


def test_while_uninstalling_nodes_keep_the_label_by_which_they_are_cleaned():
    """Node Feature Discovery takes the labels of a deleted rule from the nodes at once."""
    values = {"nfd": {"enabled": True}}
    usual, uninstalling = named(render(values)), named(render({"uninstall": True, **values}))
    rule = uninstalling["NodeFeatureRule", "vdpa"]
    assert rule == usual["NodeFeatureRule", "vdpa"]
    labels = {name: value for one in rule["spec"]["rules"] for name, value in one["labels"].items()}
    selector = uninstalling["DaemonSet", "vdpa-uninstall"]["spec"]["template"]["spec"]["nodeSelector"]
    assert selector.items() <= labels.items()


@pytest.mark.parametrize("values", [{}, {"uplink": {"enabled": True}}, {"hardware": {"enabled": True}}, POOLS],
                         ids=["usual", "uplink", "hardware", "pools"])
def test_the_exporter_s_port_is_the_only_one_named_metrics(values):
    """Prometheus scrapes the ports of that name; what the daemons serve themselves counts the same again."""
    objects = render(values)
    assert {c["name"]: c["ports"] for c in containers(objects) if "ports" in c} == {
        "vdpa-exporter": [{"name": "metrics", "containerPort": 9466}]}
    served = {c["name"]: argument for c in containers(objects) for argument in c.get("args", [])
              if "metrics-address" in argument}
    assert served == {
        "vdpa-datapath": "--metrics-address=127.0.0.1:9465",
        "vdpa-device-plugin": f"--metrics-address={'127.0.0.1' if 'hardware' in values else '0.0.0.0'}:9464"}


def test_a_digest_pins_every_container_s_image():
    digest = "sha256:" + "ab" * 32
    image = {"repository": "registry.example/vdpa", "digest": digest, "pullSecrets": [{"name": "s"}]}
    objects = render({"image": image})
    assert {c["image"] for c in containers(objects)} == {f"registry.example/vdpa@{digest}"}
    specs = [o["spec"]["template"]["spec"] for o in objects if o["kind"] == "DaemonSet"]
    assert specs and all(spec["imagePullSecrets"] == [{"name": "s"}] for spec in specs)
    assert {c["image"] for c in containers(render({"image": {"tag": "x"}}))} == {"localhost/vdpa:x"}


def test_a_node_pool_is_a_plugin_with_a_configuration_and_all_share_the_datapath():
    objects = named(render(POOLS))
    assert set(objects) == {
        ("DaemonSet", "vdpa-datapath"), ("DaemonSet", "vdpa-exporter"),
        ("ConfigMap", "vdpa-config-edge"), ("ConfigMap", "vdpa-config-core"),
        ("DaemonSet", "vdpa-device-plugin-edge"), ("DaemonSet", "vdpa-device-plugin-core")}
    for pool in POOLS["nodePools"]:
        assert objects["ConfigMap", f"vdpa-config-{pool['name']}"]["data"]["config.yaml"].strip() == pool["config"]
        plugin = objects["DaemonSet", f"vdpa-device-plugin-{pool['name']}"]["spec"]
        assert plugin["template"]["spec"]["nodeSelector"] == {"vdpa.io/node": "true", **pool["nodeSelector"]}
        assert {"name": "config", "configMap": {"name": f"vdpa-config-{pool['name']}"}} in plugin["template"]["spec"]["volumes"]
        assert plugin["selector"]["matchLabels"]["vdpa.io/pool"] == pool["name"]
        assert plugin["selector"]["matchLabels"].items() <= plugin["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("values", [{}, {"hardware": {"enabled": True}}, EVERYTHING, {"uninstall": True, **EVERYTHING}],
                         ids=["usual", "hardware", "everything", "uninstall"])
def test_nothing_may_talk_to_the_api_server(values):
    for platform in "kubeadm", "openshift", "gke":
        objects = render({"platform": platform, **values})
        assert {o["kind"] for o in objects} <= {
            "DaemonSet", "ConfigMap", "ServiceAccount", "SecurityContextConstraints", "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding", "NodeFeatureRule", "Service", "ServiceMonitor", "PrometheusRule",
            "ResourceQuota"}
        for o in objects:
            if o["kind"] == "DaemonSet":
                assert o["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("values", [{}, {"hardware": {"enabled": True}}, EVERYTHING, {"uninstall": True}],
                         ids=["usual", "hardware", "everything", "uninstall"])
def test_openshift_s_constraints_allow_what_the_pods_ask_for_and_no_more(values):
    objects = render({"platform": "openshift", **values})
    [constraints] = [o for o in objects if o["kind"] == "SecurityContextConstraints"]
    assert constraints["users"] == ["system:serviceaccount:vdpa-system:vdpa"]
    specs = [o["spec"]["template"]["spec"] for o in objects if o["kind"] == "DaemonSet"]
    assert all(spec["serviceAccountName"] == "vdpa" for spec in specs)
    assert specs and all(spec["securityContext"]["seLinuxOptions"] == {"type": "spc_t"} for spec in specs)
    contexts = [c["securityContext"] for c in containers(objects)]
    privileged = any(context.get("privileged", False) for context in contexts)
    assert constraints["allowPrivilegedContainer"] == privileged == values.get("hardware", {}).get("enabled", False)
    asked = {name for context in contexts for name in context.get("capabilities", {}).get("add", [])}
    assert asked <= set(constraints["allowedCapabilities"])
    if "uninstall" not in values and not privileged:
        assert asked == set(constraints["allowedCapabilities"])
        assert constraints["allowHostNetwork"] == any(spec.get("hostNetwork", False) for spec in specs)
    assert constraints["readOnlyRootFilesystem"] is all(context["readOnlyRootFilesystem"] for context in contexts)
    volumes = {kind for spec in specs for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
    assert volumes <= set(constraints["volumes"])


def test_the_packaged_chart_renders_the_same(tmp_path):
    done = run(PROGRAMS / "helm", "package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    [package] = tmp_path.glob("vdpa-*.tgz")
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    assert f"version: '{version}'" in (ROOT / "meson.build").read_text()
    assert package.name == f"vdpa-{version}.tgz"
    rendered = run(PROGRAMS / "helm", "template", "vdpa", package, "--namespace", "vdpa-system")
    assert [o for o in yaml.safe_load_all(rendered.stdout) if o] == render()


@pytest.fixture
def release(tmp_path, monkeypatch):
    """Packs with Helm's kustomize in kubectl's place."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\nshift\nexec {PROGRAMS / "kustomize"} build "$@"\n')
    kubectl.chmod(0o755)
    (tmp_path / "dist").mkdir()
    return lambda image=None: pack.Release(tmp_path, tmp_path / "dist", kubectl, image, None, [])


def files_of(archive):
    with tarfile.open(archive) as opened:
        return {member.name for member in opened if not member.isdir()}


@pytest.mark.parametrize("image", [None, f"registry.example/vdpa@sha256:{'ab' * 32}"], ids=["usual", "pinned"])
def test_the_released_chart_is_that_which_helm_packages(image, release, tmp_path):
    made = release(image)
    made.pack_chart()
    released = tmp_path / f"dist/vdpa-{made.version}.tgz"
    assert run(PROGRAMS / "helm", "package", CHART, "--destination", tmp_path).returncode == 0
    assert files_of(released) == files_of(tmp_path / released.name)
    lint = run(PROGRAMS / "helm", "lint", "--strict", released)
    assert lint.returncode == 0, lint.stdout
    rendered = run(PROGRAMS / "helm", "template", "vdpa", released, "--namespace", "vdpa-system")
    values = {"image": dict(zip(("repository", "digest"), image.split("@"), strict=True))} if image else {}
    assert [o for o in yaml.safe_load_all(rendered.stdout) if o] == render(values)


def test_the_released_manifests_are_those_that_the_documents_name(release, tmp_path):
    image = f"registry.example/vdpa@sha256:{'ab' * 32}"
    made = release(image)
    made.pack_manifests(tmp_path / "staged")
    archive = tmp_path / f"dist/vdpa-{made.version}-manifests.tar.gz"
    folders = "samples", "policies", "nfd", "schema"
    assert files_of(archive) == {"manifests/monitoring.yaml"} | {
        str(path.relative_to(ROOT)) for folder in folders for path in (MANIFESTS / folder).rglob("*") if path.is_file()}
    with tarfile.open(archive) as opened:
        monitoring = list(yaml.safe_load_all(opened.extractfile("manifests/monitoring.yaml").read()))
        assert named(monitoring) == named(kustomized(MANIFESTS / "monitoring"))
        pods = list(yaml.safe_load_all(opened.extractfile("manifests/samples/pods.yaml").read()))
    assert {c["image"] for pod in pods for c in pod["spec"]["containers"]} == {image}
