"""manifests/schema agrees with the parsers: each document of schema_corpus has the same verdict from both, and no key of a
parser lacks there."""

import concurrent.futures
import json
import pathlib
import re
import subprocess

import jsonschema
import pytest
import yaml

import vdpactl
from configuration import keys_of_a_network, keys_of_the_parser
from device_plugin import PROGRAM
from support import ROOT

SCHEMAS = ROOT / "manifests/schema"
CORPUS = pathlib.Path(__file__).parent / "schema_corpus"


class Yaml12(yaml.SafeLoader):
    """YAML as yaml-cpp and editors read it: `yes`, `on` and their like are words."""


Yaml12.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()}
Yaml12.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


def load(text):
    return yaml.load(text, Yaml12)


def schema(name):
    document = json.loads((SCHEMAS / f"{name}.json").read_text())
    jsonschema.Draft7Validator.check_schema(document)
    return jsonschema.Draft7Validator(document)


def corpus(name, whole):
    """Triples: what both should say, the key at fault, and the document, which `whole` completes."""
    lists = load((CORPUS / f"{name}.yaml").read_text())
    return ([("good", "", whole(entry)) for entry in lists["good"]]
            + [("bad", key, whole(entry)) for key, entries in lists["bad"].items() for entry in entries]
            + [("relation", "", whole(entry)) for entry in lists["relations"]])


def keys_of(value, path=""):
    """Keys with a value of their own: "resources.socket.uid"."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            for key, inner in item.items():
                yield from keys_of(inner, f"{path}.{key}" if path else key)
        elif path:
            yield path


def check(validator, verdict, document, place):
    problems = [error.message for error in validator.iter_errors(document)]
    if verdict == "bad":
        assert problems, f"the schema accepts {place}"
    else:   # JSON Schema cannot express a relation
        assert not problems, f"the schema refuses {place}: {problems}"


CONFIGURATIONS = corpus("config", lambda text: text if "resources" in text else f"resources: [{text}]\n")


def test_configurations(directory):
    def parse(number):
        file = directory / f"{number}.yaml"
        file.write_text(CONFIGURATIONS[number][2])
        return subprocess.run([PROGRAM, "--validate", "--config", file, "--node-name", "worker-1"], capture_output=True,
                              text=True, check=False)

    validator = schema("config")
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for (verdict, key, text), done in zip(CONFIGURATIONS, threads.map(parse, range(len(CONFIGURATIONS)))):
            said = done.stdout + done.stderr
            assert (done.returncode == 0) == (verdict == "good"), f"{text}: {said}"
            assert key.split(".")[-1].rstrip("s") in said, f"{text} should be refused because of {key}: {said}"
            check(validator, verdict, load(text), text)


def test_every_key_of_a_configuration_is_in_the_corpus_and_in_the_schema(directory):
    keys = set(keys_of_the_parser(directory))
    good = {key for verdict, _, text in CONFIGURATIONS if verdict == "good" for key in keys_of(load(text))}
    # A CPU list and an uplink have a second, simpler form.
    assert good - {"resources.software.uplink"} == keys
    assert {key for _, key, _ in CONFIGURATIONS} >= keys
    definitions = schema("config").schema["definitions"]

    def described(node, path):
        node = definitions.get(node.get("$ref", "").rpartition("/")[2], node)
        node = {**node, "properties": {**node.get("properties", {}), **{
            key: value for form in node.get("oneOf", []) for key, value in form.get("properties", {}).items()}}}
        if node.get("type") == "array":
            return described(node["items"], path)
        if not node["properties"]:
            return {path}
        return set().union(*(described(inner, f"{path}.{key}" if path else key) for key, inner in node["properties"].items()))
    assert described(schema("config").schema, "") == keys


def test_features_of_the_schema_are_those_of_the_parser(directory):
    file = directory / "config.yaml"
    file.write_text("resources: [{name: a, provision: vdpa, devices: [{drivers: [b]}], vdpa: {features: [c]}}]")
    done = subprocess.run([PROGRAM, "--validate", "--config", file], capture_output=True, text=True, check=False)
    names = re.search(r"as `vdpa mgmtdev show` names it: (.*)", done.stderr)[1].split(", ")
    words, bits = schema("config").schema["definitions"]["features"]["anyOf"]
    assert words["enum"] == [name for name in names if not re.match(bits["pattern"], name)]


NETWORKS = corpus("network", lambda keys: {"cniVersion": "1.0.0", "name": "a", "type": "vdpa", **keys})


def test_networks(directory):
    validator = schema("network")
    files = []
    for number, (_, _, network) in enumerate(NETWORKS):
        files.append(directory / f"{number}.json")
        files[-1].write_text(json.dumps(network, indent=1))
    problems = {problem["file"]: problem for problem in json.loads(vdpactl.run(directory, "lint", "-o", "json", *files).stdout)}
    for file, (verdict, key, network) in zip(files, NETWORKS):
        problem = problems.get(str(file), {"message": ""})
        assert (problem["message"] == "") == (verdict == "good"), f"{network}: {problem}"
        assert problem["message"].startswith(key), f"{network} should be refused because of {key}: {problem}"
        if key in network:
            assert f'"{key}"' in file.read_text().splitlines()[problem["line"] - 1], problem
        check(validator, verdict, network, network)


def test_every_key_of_a_network_is_in_the_corpus_and_in_the_schema(directory):
    keys = set(keys_of_a_network(directory))
    assert {key for verdict, _, network in NETWORKS if verdict == "good" for key in network} == keys
    # A type other than vdpa is no network of this plugin; nobody reads the last one at ADD.
    assert {key for _, key, _ in NETWORKS} >= keys - {"type", "cni.dev/valid-attachments"}
    assert set(schema("network").schema["properties"]) == keys


SAMPLES = [ROOT / "manifests/schema/config.yaml", ROOT / "manifests/samples/network.yaml"]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_samples_name_their_schema_and_follow_it(path):
    """In the form that the YAML language server expects, relative to the file."""
    named = re.match(r"# yaml-language-server: \$schema=(.*)\n", path.read_text())[1]
    found = (path.parent / named).resolve()
    assert found.parent == SCHEMAS and found.exists(), named
    check(schema(found.stem), "good", load(path.read_text()), path)


def test_the_plugin_accepts_the_sample():
    done = subprocess.run([PROGRAM, "--validate", "--config", SAMPLES[0]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("place", ["base", "hardware"])
def test_config_maps_follow_the_schema(place):
    path = ROOT / "manifests" / place / "config.yaml"
    check(schema("config"), "good", load(load(path.read_text())["data"]["config.yaml"]), path)


@pytest.mark.parametrize("change, accepted", [
    (lambda network: None, True),
    (lambda network: network["metadata"].pop("annotations"), False),
    (lambda network: network["metadata"]["annotations"].update({"k8s.v1.cni.cncf.io/resourceName": "nic"}), False),
    (lambda network: network["spec"].update(config={"type": "vdpa"}), False),
])
def test_schema_of_networks_in_kubernetes(change, accepted):
    network = load((ROOT / "manifests/samples/network.yaml").read_text())
    change(network)
    assert schema("network-attachment-definition").is_valid(network) == accepted
