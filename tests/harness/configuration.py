"""The keys that the parsers know, by their own errors, so that tests notice a key that they lack."""

import json
import re
import subprocess

import vdpactl
from device_plugin import PROGRAM


def known(directory, document):
    """The keys that the plugin's parser expects in a map at the end of this document; none if it expects no map there."""
    config = directory / "config.yaml"
    config.write_text(json.dumps(document({"no-such-key": 1})))
    done = subprocess.run([PROGRAM, "--validate", "--config", config], capture_output=True, text=True, check=False)
    found = re.search(r"unknown key 'no-such-key' in .*; expected one of (.*)", done.stdout + done.stderr)
    return found[1].split(", ") if found else []


# Keys that the parser checks before the others of their map.
REQUIRED = {"resources.": {"name": "nic"}, "resources.software.": {"ports": 1}}


def keys_of_the_parser(directory, document=lambda value: value, path=""):
    """Every key that has a value of its own, in the form of the parser's errors: "resources.socket.uid"."""
    for key in known(directory, document):
        for form in (lambda value: value), (lambda value: [value]):
            def inner(value, form=form, key=key):
                return document({**REQUIRED.get(path, {}), key: form(value)})
            if known(directory, inner):
                yield from keys_of_the_parser(directory, inner, f"{path}{key}.")
                break
        else:
            yield path + key


def keys_of_a_network(directory):
    """The keys that the CNI plugin's parser knows at the top of a network's configuration."""
    network = directory / "network.json"
    network.write_text(json.dumps({"cniVersion": "1.0.0", "name": "a", "type": "vdpa", "no-such-key": 1}))
    done = vdpactl.run(directory, "lint", network)
    return re.search(r"unknown key 'no-such-key' .*; expected one of (.*)", done.stdout)[1].split(", ")
