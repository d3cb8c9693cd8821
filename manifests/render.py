#!/usr/bin/env python3
"""Makes the kustomize base and the plain manifests from the Helm chart, and the table of its values in its README: the chart
is the only source of all of them. render.py [FOLDER]: the folder with the manifests, by default this one. HELM names the
program."""

import json
import os
import pathlib
import re
import subprocess
import sys

import yaml

CACHE = pathlib.Path(os.environ.get("VDPA_CACHE", pathlib.Path.home() / ".cache" / "vdpa"))
HELM = os.environ.get("HELM", CACHE / "helm" / "bin" / "helm")
NAMESPACE = "vdpa-system"
# File, template, values. The kustomize base has the rights for an uplink, as that of 0.1.0 had.
RENDERED = (
    ("base/config.yaml", "config.yaml", []),
    ("base/datapath.yaml", "datapath.yaml", ["uplink.enabled=true"]),
    ("base/device-plugin.yaml", "device-plugin.yaml", []),
    ("base/exporter.yaml", "exporter.yaml", []),
    ("hardware/config.yaml", "config.yaml", ["hardware.enabled=true"]),
    ("policies/networks.yaml", "networks-policy.yaml", ["policies.requireResourceName=true"]),
    ("nfd/node-feature-rule.yaml", "node-feature-rule.yaml", ["nfd.enabled=true"]),
)


def template(chart, name, values):
    options = [word for value in values for word in ("--set", value)]
    text = subprocess.run([HELM, "template", "vdpa", chart, "--namespace", NAMESPACE, "--show-only", f"templates/{name}",
                           *options], check=True, capture_output=True, text=True).stdout
    text = re.sub(r"(?m)^---\n# Source: .*\n", "", text, count=1)
    return re.sub(r"(?m)^---\n# Source: .*\n", "---\n", text).rstrip() + "\n"


def values_of(text):
    """The documented keys: name, default and description, in the file's order."""
    loaded, path, comment = yaml.safe_load(text), [], []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = [stripped[5:]]
        elif stripped.startswith("# ") and comment:
            comment.append(stripped[2:])
        elif key := re.match(r"( *)([A-Za-z]+):", line):
            path = [*path[:len(key[1]) // 2], key[2]]
            if comment:
                value = loaded
                for part in path:
                    value = value[part]
                yield ".".join(path), value, " ".join(comment)
                comment = []
            elif not isinstance(loaded.get(path[0]), dict):
                raise SystemExit(f"values.yaml: {'.'.join(path)} has no comment that begins with '# --'")


def table(text):
    rows = [f"| `{name}` | `{json.dumps(value)}` | {comment} |" for name, value, comment in values_of(text)]
    return "\n".join(["| value | default | meaning |", "| --- | --- | --- |", *rows]) + "\n"


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
    folder = folder if folder.is_dir() else folder.parent
    chart = folder / "helm"
    version = yaml.safe_load((chart / "Chart.yaml").read_text())["appVersion"]
    for file, name, values in RENDERED:
        # kustomize sets the image: base/kustomization.yaml.
        text = template(chart, name, values).replace(f"localhost/vdpa:{version}", "vdpa")
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text)
    readme = chart / "README.md"
    before, rest = readme.read_text().split("<!-- values -->\n")
    after = rest.split("<!-- end of values -->\n")[1]
    readme.write_text(f"{before}<!-- values -->\n{table((chart / 'values.yaml').read_text())}<!-- end of values -->\n{after}")


main()
