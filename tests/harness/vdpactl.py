"""Runs vdpactl against a vdpa-datapath: its command line and its output."""

import json
import subprocess

from support import BUILD

PROGRAM = BUILD / "deviceplugin/ctl/vdpactl"


def command(directory, *arguments, program=PROGRAM):
    return [program, "--datapath-socket", directory / "run/datapath.sock", "--pod-resources", directory / "pods.sock",
            *arguments]


def run(directory, *arguments, **popen):
    return subprocess.run(command(directory, *arguments), capture_output=True, text=True, timeout=20, check=False, **popen)


def output(directory, *arguments):
    done = run(directory, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(directory, *arguments):
    """The rows by their first cell, as {header: cell}; columns are separated by at least two spaces."""
    lines = output(directory, *arguments).splitlines()
    header = lines[0].split()
    starts = [lines[0].index(word) for word in header]
    ends = starts[1:] + [None]
    return {line.split()[0]: {word: line[start:end].strip() for word, start, end in zip(header, starts, ends)}
            for line in lines[1:]}


def as_json(directory, *arguments):
    return {item["device"]: item for item in json.loads(output(directory, *arguments, "--output", "json"))}
