"""Which folder of the product may include which: the one place where that is written."""

import pathlib
import re
import subprocess
import sys

# A folder, and what it includes beside common. Those of one block see each other by their short names. Each includes only what
# is above it, so that there is no circle; what nothing needs any more is an error too.
BLOCKS = {
    "": {
        "common": "",
        "cni": "",
        "deviceplugin/ctl": "",
    },
    "deviceplugin/": {
        "config": "",
        "events": "",
        "discovery": "events",
        "resources": "config discovery",
        "kubelet": "config events resources",
        "": "config discovery events kubelet resources",
    },
    "deviceplugin/datapath/": {
        "model": "",
        "netlink": "model",
        "records": "model",
        "pod_files": "model records",
        "processes": "model records",
        "hardware": "model netlink records",
        "backends": "hardware model netlink processes records",
        "attachments": "backends hardware model netlink pod_files processes records",
        "api": "attachments model",
        "": "api attachments model processes",
    },
    "deviceplugin/datapath/worker/": {
        "protocol": "",
        "engines": "protocol",
        "": "engines protocol",
    },
    "deviceplugin/datapath/ ": {  # what DPDK programs share, and they
        "dpdk": "",
        "switch": "dpdk",
        "pmd": "dpdk",
    },
}
INCLUDE = re.compile(r'^#include "((?:common|cni|deviceplugin)/.+)"', re.MULTILINE)
SHORT = re.compile(r'^#include ["<]([a-z_]+\.h)[">]', re.MULTILINE)


def allowed():
    """Pairs of folders, and the folders in their order."""
    pairs, order = set(), []
    for block, folders in BLOCKS.items():
        for name, includes in folders.items():
            folder = (block.strip() + name).rstrip("/")
            order.append(folder)
            pairs |= {(folder, (block.strip() + other).rstrip("/")) for other in includes.split()}
    return pairs, order


def sources():
    files = subprocess.check_output(["git", "ls-files", "common", "cni", "deviceplugin"], text=True).split()
    return [file for file in files if file.endswith((".h", ".cc"))]


def used():
    """Pairs of folders, each with one include that makes it."""
    pairs = {}
    for file in sources():
        for include in INCLUDE.findall(pathlib.Path(file).read_text()):
            pair = str(pathlib.PurePath(file).parent), str(pathlib.PurePath(include).parent)
            if pair[0] != pair[1] and pair[1] not in ("common", "common/proto"):
                pairs.setdefault(pair, f"{file} includes {include}")
    return pairs


def shortened():
    """Includes of the project's own by a name that leaves out the folder."""
    own = {pathlib.PurePath(file).name: file for file in sources()}
    for file in sources():
        for name in SHORT.findall(pathlib.Path(file).read_text()):
            if name in own:
                yield f"{file} includes {name}: say {own[name]}"


def findings():
    yield from shortened()
    may, order = allowed()
    are = used()
    for pair in sorted(may):
        if order.index(pair[1]) >= order.index(pair[0]):
            yield f"{pair[0]} before {pair[1]}: a folder includes only what is above it in the table"
        if pair not in are:
            yield f"{pair[0]} does not include {pair[1]} any more: take it out of the table"
    for pair, example in sorted(are.items()):
        if pair not in may:
            yield f"{example}: {pair[0]} may not include {pair[1]}"


if __name__ == "__main__":
    found = list(findings())
    print("\n".join(found) or "folders: every include is one of the table")
    sys.exit(bool(found))
