"""The man pages, compared with the programs: every program and every file has a page, and each page has all options,
arguments and keys, and no others."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

from datapath import Datapath, owner
from support import BUILD, ROOT

sys.path.insert(0, str(ROOT / "manifests/release"))

from contents import PACKAGES, Program, Script

PAGES = ROOT / "manifests/man"


def image_programs():
    shown = subprocess.check_output([ROOT / "manifests/image/vdpa.sh", BUILD], text=True)
    return [pathlib.Path(path) for path in shown.split()]


def programs():
    """All programs of a release by their names."""
    found = {path.name: path for path in image_programs()}
    for _, files, _ in PACKAGES.values():
        for path, source in files.items():
            if isinstance(source, Program | Script):
                found.setdefault(pathlib.Path(path).name, (BUILD if isinstance(source, Program) else ROOT) / source.path)
    return found


def page_of(program):
    """Another package of Debian has a page vdpa(8), of iproute2's program of that name."""
    name = "vdpa-cni" if program == "vdpa" else program
    [page] = PAGES.glob(f"{name}.[18]")
    return page


def plain(text):
    return re.sub(r"\\f[BIR]|\\&", "", text).replace("\\-", "-").replace("\\e", "\\").replace('"', "")


def sections(page):
    """For each heading, and below it: the tags of its entries, with the text of each."""
    lines = page.read_text().splitlines()
    if lines[0].startswith(".so "):
        return sections(PAGES / pathlib.Path(lines[0].split()[1]).name)
    found, heading, tag = {}, "", None
    for i, line in enumerate(lines):
        if line.startswith((".SH ", ".SS ")):
            heading, tag = plain(line[4:]), None
            found[heading] = {}
        elif i and lines[i - 1] == ".TP":
            tag = plain(line)
            found[heading][tag] = ""
        elif tag is not None and line != ".TP":
            found[heading][tag] += plain(line) + " "
    return found


def described(entries):
    """The options and arguments of a page's entries, each with its text."""
    return {name: text for tag, text in entries.items()
            for name in (re.findall(r"--[\w-]+", tag) or re.findall(r"^-\w\b", tag) or [tag.lower()])}


def offered(program, *command):
    """The options and arguments that --help lists, each with its default, or None. CLI11 and argparse write it."""
    shown = subprocess.check_output([program, *command, "--help"], text=True)
    found = {}
    part = ""
    for line in shown.splitlines():
        if line and not line.startswith(" "):
            part = line
        if re.match(r" {2,4}-", line):
            option = re.split(r" {2,}", line.strip())[0]
            default = re.search(r" (?![-{])\S*?=(\S+)", option)
            name, *_ = re.findall(r"--[\w-]+", option) or re.findall(r"^-\w", option)   # others: what it needs or excludes
            found[name] = default[1] if default else None
        elif part in ("Positionals:", "positional arguments:") and (argument := re.match(r"  (\w+)", line)):
            found[argument[1]] = None
    found.pop("COMMAND", None)   # argparse's, of sub-commands
    return found


def sub_commands(program):
    shown = subprocess.check_output([program, "--help"], text=True)
    start, indent = ("Subcommands:", "  ") if "Subcommands:" in shown else ("\n  COMMAND\n", "    ")
    return re.findall(rf"^{indent}(\w[\w-]*)(?: |$)", shown.partition(start)[2], re.MULTILINE)


def differences(page, program, command, entries, elsewhere):
    """`elsewhere`: what a sub-command need not describe, or a program need not have, since the other does."""
    have, want = described(entries), offered(program, *command)
    where = " ".join([page.name, *command])
    yield from (f"{where} lacks {name}" for name in want.keys() - have.keys() - elsewhere - {"--help"})
    yield from (f"{where} has {name}, which the program lacks" for name in have.keys() - want.keys() - elsewhere - {"--help"})
    yield from (f"{where}: the default of {name} is {want[name]}" for name in want.keys() & have.keys()
                if want[name] and want[name] not in have[name])


@pytest.mark.parametrize("name", programs())
def test_a_program_s_page_has_its_options(name):
    program, page = programs()[name], page_of(name)
    found = sections(page)
    commands = sub_commands(program)
    common = set(described(found["OPTIONS"]))
    problems = list(differences(page, program, [], found["OPTIONS"],
                                {name for command in commands for name in offered(program, command)}))
    if commands:
        described_commands = {heading.split()[0]: entries for heading, entries in found.items()
                              if not heading.isupper() and heading[:1].islower()}
        assert set(described_commands) == set(commands)
        for command in commands:
            problems += differences(page, program, [command], described_commands[command], common)
    assert problems == []


def test_a_release_has_every_page_once():
    packed = [page for _, _, pages in PACKAGES.values() for page in pages]
    assert sorted(packed) == sorted(path.name for path in PAGES.iterdir())


@pytest.mark.parametrize("page", sorted(PAGES.iterdir()), ids=lambda path: path.name)
def test_a_page_is_well_formed(page):
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", page], cwd=PAGES, capture_output=True, text=True, check=True)
    # The paths of .so begin where man(1) starts groff.
    complaints = [line for line in done.stderr.splitlines() if "can't open" not in line]
    assert complaints == []
    if not page.read_text().startswith(".so "):
        assert page.read_text().startswith(f".TH {page.stem} {page.suffix[1:]} ".replace("-", "\\-"))


CONFIGURATION = {
    "THE FILE": "{%s: 1}",
    "RESOURCE": "resources: [{%s: 1}]",
    "SELECTOR": "resources: [{name: a, devices: [{%s: 1}]}]",
    "VDPA": "resources: [{name: a, vdpa: {%s: 1}}]",
    "DPDK": "resources: [{name: a, dpdk: {%s: 1}}]",
    "SOCKET": "resources: [{name: a, socket: {%s: 1}}]",
    "SOFTWARE": "resources: [{name: a, software: {%s: 1}}]",
    "UPLINK": "resources: [{name: a, software: {ports: 1, uplink: {%s: 1}}}]",
}


@pytest.mark.parametrize("section", CONFIGURATION)
def test_the_configuration_s_page_has_its_keys(section, directory):
    """The parser answers to an unknown key with the keys that it knows."""
    file = directory / "config.yaml"
    file.write_text(CONFIGURATION[section] % "unknown-key")
    done = subprocess.run([programs()["vdpa-device-plugin"], "--validate", "--config", file], capture_output=True, text=True,
                          check=False)
    known = re.search(r"unknown key 'unknown-key' in .*; expected one of (.*)", done.stderr)
    assert known, done.stderr
    assert sorted(sections(PAGES / "vdpa-config.5")[section]) == sorted(known[1].split(", "))


def test_the_network_s_page_has_its_keys():
    sources = {path.name: path.read_text() for path in [ROOT / "common/port_settings.h", *(ROOT / "cni").glob("*.cc")]}
    settings = re.findall(r'visit\(Setting\{"(\w+)"', sources.pop("port_settings.h"))
    found = sections(PAGES / "vdpa-network.5")
    assert sorted(found["KEYS OF A DEVICE"]) == sorted(settings)
    read = set(re.findall(r'"(\w+)"', "".join(sources.values())))
    assert set(found["KEYS OF CNI"]) | set(found["KEYS OF THE PLUGIN"]) <= read
    assert {"datapathSocket", "logLevel", "logFile"} == set(found["KEYS OF THE PLUGIN"])


def test_the_device_s_page_has_its_files_and_keys(directory):
    with Datapath(directory) as datapath:
        datapath.wait_serving().offer(1).wait_healthy()
        datapath.attach(owner("c1"))
        given = directory / "run/devices/nic-0"
        found = sections(PAGES / "vdpa-device.5")
        assert sorted(found["FILES"]) == sorted(path.name for path in given.iterdir())
        assert sorted(found["DEVICE.JSON"]) == sorted(json.loads((given / "device.json").read_text()))
