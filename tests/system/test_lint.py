"""vdpactl lint on files: places, exit status, and every kind of mistake in networks and pods."""

import json
import subprocess
import textwrap

import pytest

import vdpactl
from documents import block
from support import ROOT

NETWORK = """\
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata:
  name: fast
  annotations: {k8s.v1.cni.cncf.io/resourceName: vdpa.io/nic}
spec:
  config: |
    {
      "cniVersion": "1.0.0",
      "type": "vdpa",
      "vlan": 100
    }
"""


def pod(annotation, *devices, kind="Pod", init=(), more=""):
    """A pod whose containers request these numbers of devices, or an object with a template of it."""
    def container(number):
        return {"name": "c", "image": "i", "resources": {"limits": {"vdpa.io/nic": number}} if number is not None else {}}
    annotations = {} if annotation is None else {"annotations": {"k8s.v1.cni.cncf.io/networks": annotation}}
    inner = {"metadata": annotations, "spec": {"initContainers": [container(number) for number in init],
                                               "containers": [container(number) for number in devices]}}
    spec = {"Pod": inner["spec"], "CronJob": {"jobTemplate": {"spec": {"template": inner}}}}.get(kind, {"template": inner})
    metadata = {"name": "app", **(annotations if kind == "Pod" else {})}
    return "---\n" + json.dumps({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec}) + "\n" + more


def lint(directory, text, *arguments):
    """The findings, as (line, message)."""
    file = directory / "f.yaml"
    file.write_text(textwrap.dedent(text))
    done = vdpactl.run(directory, "lint", file, *arguments)
    assert not done.stderr or "no network and no pod" in done.stderr, done.stderr
    found = [line.removeprefix(f"{file}:").partition(": ")[::2] for line in done.stdout.splitlines()]
    assert done.returncode == bool(found), done
    return [(int(line), message) for line, message in found]


def only(directory, text):
    found = lint(directory, text)
    assert len(found) == 1, found
    return found[0]


def test_the_samples_are_right(directory):
    done = vdpactl.run(directory, "lint", *sorted((ROOT / "manifests/samples").glob("*.yaml")))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done


def test_the_documents_pod_is_right(directory):
    text = block("cni/README.md", "pod")
    assert not lint(directory, text)
    # Both of its objects are read, and as belonging together.
    assert "vlan: expected a whole number" in only(directory, text.replace('"vlan": 100', '"vlan": 5000'))[1]
    assert "request 2 of vdpa.io/nic" in only(directory, text.replace("vdpa.io/nic: 1", "vdpa.io/nic: 2"))[1]


@pytest.mark.parametrize("before, after, line, words", [
    ('"vlan": 100', '"vlan": 5000', 11, ["vlan: expected a whole number from 0 to 4094", "5000"]),
    ('"vlan": 100', '"vlan": 100, "vlanQos": 3', 11, ["unknown key 'vlanQos'", "did you mean 'vlanQoS'?"]),
    ('"vlan": 100', '"vlan": 100, "speed": 3', 11, ["unknown key 'speed'", "expected one of cniVersion, name"]),
    ('"vlan": 100', '"vlan": 100,', 12, ["not JSON", "unexpected '}'"]),
    ('"vlan": 100', '"mtu": 67', 11, ["mtu: expected a whole number from 68 to 65535"]),
    ('"vlan": 100', '"vlanTrunk": "1-2000,5000"', 11, ["vlanTrunk", "in at most 1000 bytes"]),
    ('"1.0.0"', '"0.2.0"', 9, ["cniVersion 0.2.0 is not supported"]),
    ("  annotations: {k8s.v1.cni.cncf.io/resourceName: vdpa.io/nic}\n", "", 4, ["resourceName is missing"]),
    ("vdpa.io/nic", "nic", 5, ["'nic'", "expected a resource, such as vdpa.io/nic"]),
    ("config: |\n    {", "config:\n    {", 8, ["spec.config is not a string"]),
    ("kind: NetworkAttachmentDefinition", "kind: [", 4, ["not YAML"]),
])
def test_mistakes_in_networks(directory, before, after, line, words):
    assert before in NETWORK
    found, message = only(directory, NETWORK.replace(before, after))
    assert found == line and all(word in message for word in words), (found, message)


def test_lists_of_plugins(directory):
    config = {"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "vdpa", "vlan": 5}, {"type": "tuning", "sysctl": {}}]}
    text = NETWORK.partition("  config")[0] + "  config: '%s'\n"
    assert not lint(directory, text % json.dumps(config))
    config["plugins"][0]["vlan"] = "5"
    config["pluginz"] = []
    unknown, wrong = [message for _, message in lint(directory, text % json.dumps(config))]
    assert unknown.startswith("unknown key 'pluginz' in a list of plugins, which would be ignored; expected one of cniVersion")
    assert wrong == "vlan: expected a whole number from 0 to 4094, found '5'"


def test_other_networks_are_not_ours(directory):
    assert not lint(directory, NETWORK.replace('"vdpa"', '"macvlan"').replace('"vlan"', '"master"'))
    assert not lint(directory, NETWORK.partition("spec:")[0] + "spec: {}\n")   # Multus finds the file on the node


@pytest.mark.parametrize("kind", ["Pod", "Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "Job", "CronJob"])
def test_counts(directory, kind):
    def found(*arguments, **more):
        return [message for _, message in lint(directory, NETWORK + pod(*arguments, kind=kind, **more))]

    assert not found("fast", 1)
    assert not found("fast, fast@net7", 1, 1)
    assert not found('[{"name": "fast", "interface": "eth5", "mac": "02:00:00:00:00:01"}]', 1)
    assert not found("other, fast", 2)          # another file's network may use the other device
    assert not found("fast", "1", init=[1])      # a running container has it
    assert not found(None, None)
    for annotation, devices, words in [
            ("fast,fast", [1], "request 1 of vdpa.io/nic, and 2 of the pod's networks use them"),
            ("fast", [1, 1], "request 2 of vdpa.io/nic, and 1 of the pod's networks use one"),
            ("", [1], "request 1 of vdpa.io/nic, and 0 of the pod's"),
            (None, [1], "has no annotation k8s.v1.cni.cncf.io/networks"),
            ("fast", [None], "1 of the pod's networks need a device of vdpa.io/nic, which no container requests"),
            ("fast", ["half"], "vdpa.io/nic is 'half'; expected a whole number"),
            ('[{"name": "fast", "mac": "01:00:00:00:00:01"}]', [1], "runtimeConfig.mac '01:00:00:00:00:01' is a multicast"),
            ('[{"interface": "net1"}]', [1], "an entry has no name"),
            ("[fast]", [1], "it is not a JSON list"),
            ("fast@net1,fast@net1", [2], "two networks have the interface net1"),
            ("fast@abcdefghijklmnop", [1], "is no interface name"),
            ("a/b/c", [1], "names no network"),
            ("Fast", [1], "names no network")]:
        messages = found(annotation, *devices)
        assert len(messages) == 1 and words in messages[0], (annotation, devices, messages)
    messages = found("fast", None, init=[1])
    assert len(messages) == 1 and "only an init container requests vdpa.io/nic" in messages[0], messages


def test_sidecars_keep_their_devices(directory):
    text = pod("fast", None, init=[1]).replace('"name": "c"', '"name": "c", "restartPolicy": "Always"', 1)
    assert not lint(directory, NETWORK + text)


def test_requests_that_differ_from_limits(directory):
    text = pod("fast", 1).replace('"limits"', '"requests": {"vdpa.io/nic": 2}, "limits"')
    assert "requests differs from limits" in only(directory, NETWORK + text)[1]


def test_an_annotation_in_the_wrong_place(directory):
    text = pod(None, 1, kind="Deployment").replace(
        '"name": "app"', '"name": "app", "annotations": {"k8s.v1.cni.cncf.io/networks": "fast"}')
    assert "an annotation of the Deployment" in only(directory, NETWORK + text)[1]


def test_namespaces(directory):
    network = NETWORK.replace("name: fast", "name: fast\n  namespace: lab")
    here = pod("fast,fast", 1).replace('"name": "app"', '"name": "app", "namespace": "lab"')
    assert "request 1" in only(directory, network + here)[1]
    assert "request 1" in only(directory, network + pod("lab/fast,lab/fast", 1))[1]
    # A network of that name in another namespace is unknown: it may be of any type.
    assert not lint(directory, network + here.replace('"namespace": "lab"', '"namespace": "other"'))


def test_lists_and_standard_input(directory):
    items = [json.loads(pod("fast,fast", 1).removeprefix("---\n"))]
    both = NETWORK + "---\n" + json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    assert "request 1" in only(directory, both)[1]
    done = subprocess.run(vdpactl.command(directory, "lint", "-"), input=NETWORK.replace("100", "-1"), capture_output=True,
                          text=True, timeout=20, check=False)
    assert done.returncode == 1 and done.stdout.startswith("stdin:11: vlan: expected"), done


def test_networks_of_one_file_and_pods_of_another(directory):
    network, app = directory / "network.yaml", directory / "app.yaml"
    network.write_text(NETWORK)
    app.write_text(pod("fast,fast", 1))
    done = vdpactl.run(directory, "lint", app, network, "--output", "json")
    assert done.returncode == 1
    [problem] = json.loads(done.stdout)
    assert (problem["file"], problem["line"]) == (str(app), 2) and "request 1" in problem["message"]


@pytest.mark.parametrize("text", [
    "&a {kind: List, items: [*a]}", "? {a: b}\n: c", "- 1\n- 2", "", "kind: Pod\nspec: {containers: 5}",
    "kind: Pod\nspec: {containers: [5, {resources: 3}], initContainers: 7}\nmetadata: [1]",
    "kind: NetworkAttachmentDefinition", "kind: NetworkAttachmentDefinition\nspec: 5\nmetadata: {annotations: 3}",
    "kind: [Pod]\nspec: {template: {spec: {containers: [{resources: {limits: {? [1] : 2}}}]}}}"])
def test_strange_files_are_no_mistake_of_ours(directory, text):
    assert not lint(directory, text)


def test_missing_files(directory):
    done = vdpactl.run(directory, "lint", directory / "absent.yaml")
    assert done.returncode == 1 and "absent.yaml" in done.stderr and not done.stdout
    empty = directory / "empty.yaml"
    empty.write_text("")
    done = vdpactl.run(directory, "lint", empty)
    assert done.returncode == 0 and "no network and no pod to check" in done.stderr
