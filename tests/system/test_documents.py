"""The documents' commands, configurations and networks, as they stand, with the programs that take them."""

import json
import os
import re
import subprocess

import pytest
import yaml

from cni import DEBIAN_PLUGINS, daemon, name_in, node  # noqa: F401 (fixtures)
from device_plugin import PROGRAM
from documents import block, documents
from support import BUILD, ROOT


def validated(directory, config):
    """What the documents' command prints about a configuration."""
    (directory / "config.yaml").write_text(config)
    commands = block("deviceplugin/README.md", "validate")
    done = subprocess.run(["sh", "-euc", commands], cwd=directory, capture_output=True, text=True, timeout=60, check=False,
                          env=os.environ | {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("folder", ["base", "hardware"])
def test_the_configurations_of_the_manifests_can_be_checked_as_documented(directory, folder):
    manifest = yaml.safe_load((ROOT / "manifests" / folder / "config.yaml").read_text())
    assert "vdpa.io/nic" in validated(directory, manifest["data"]["config.yaml"])


def test_the_configurations_of_the_documents_are_valid(directory):
    assert "intel.com/ct6dx_vdpa_vhost" in validated(directory, block("manifests/migrate.md", "sriov"))
    assert "vdpa.io/br-4" in validated(directory, block("manifests/migrate.md", "userspace resource"))


def test_the_networks_of_the_documents_are_taken(node, directory):
    network, _ = yaml.safe_load_all(block("cni/README.md", "pod"))
    pod_s = json.loads(network["spec"]["config"])
    migrated = json.loads(block("manifests/migrate.md", "userspace network"))
    with name_in("/var/log") as log:
        for config in pod_s, migrated:
            version = config.pop("cniVersion")
            if "ipam" in config:
                config["ipam"]["dataDir"] = str(directory / "ipam")
            if "logFile" in config:
                config["logFile"] = str(log)
            result = node.add(version=version, path=DEBIAN_PLUGINS, **config)
            attachment = node.datapath.attachment()
            assert attachment.settings.vlan == config["vlan"], attachment
            assert [ip["address"] for ip in result.get("ips", [])] == (["10.56.217.131/24"] if "ipam" in config else [])
            node.delete(version=version, path=DEBIAN_PLUGINS, **config)


def test_the_transcript_has_readme_s_commands():
    typed = [f"$ {line}" for name in ("install", "pods") for line in block("README.md", name).splitlines()]
    shown = block("manifests/first-ten-minutes.md", "transcript").splitlines()
    assert [line for line in shown if line.startswith("$ ")] == [line.replace("worker-1", "node1") for line in typed]


PROGRAMS = {"vdpa-device-plugin": "deviceplugin", "vdpactl": "deviceplugin/ctl", "vdpa-datapath": "deviceplugin/datapath"}


def helps(program):
    """A program's --help, with those of its subcommands."""
    def of(*command):
        return subprocess.run([BUILD / PROGRAMS[program] / program, *command, "--help"], capture_output=True, text=True,
                              check=True, timeout=60).stdout

    text = of()
    subcommands = re.findall(r"^  ([a-z]+) ", text.partition("Subcommands:")[2], re.MULTILINE)
    return {"": text, **{name: text + of(name) for name in subcommands}}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_documents_name_options_that_the_program_has(program):
    """Wherever a document's line has the program's name with options after it."""
    known = helps(program)
    uses = [(document, words.split()) for document in documents() for words in re.findall(
        rf"(?<![\w/=-]){program}((?: +[^\s`|;()]+)*? +--[a-z][^`|;()\n]*)", (ROOT / document).read_text())]
    assert uses
    for document, words in uses:
        subcommand = words[0] if words[0] in known else ""
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert re.search(rf"{option}(?![\w-])", known[subcommand]), f"{document}: {program} {' '.join(words)}"
