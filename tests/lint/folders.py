"""The table that defines which folder of the product may include which, and its check."""

import os
import pathlib
import re
import subprocess
import sys

# A folder, and its includes besides common. Folders of one block see each other by their short names; common's folders keep
# their whole names. Each includes only folders above it, so that there is no circle; an unused entry is an error too.
BLOCKS = {
    "": {
        "common": "",
        "common/netlink": "",
        "cni": "",
        "deviceplugin/ctl/lint": "cni",
        "deviceplugin/ctl/doctor": "",
        "deviceplugin/ctl/bundle": "common/netlink deviceplugin/ctl/doctor",
        "deviceplugin/ctl": "common/netlink deviceplugin/ctl/bundle deviceplugin/ctl/doctor deviceplugin/ctl/lint",
        "deviceplugin/exporter": "",
    },
    "deviceplugin/": {
        "config": "",
        "events": "",
        "discovery": "common/netlink",
        "resources": "config discovery",
        "kubelet": "config events resources",
        "": "common/netlink config discovery events kubelet resources",
    },
    "deviceplugin/datapath/": {
        "model": "",
        "netlink": "common/netlink model",
        "records": "model",
        "pod_files": "model records",
        "processes": "model records",
        "hardware": "common/netlink model records",
        "backends": "hardware model netlink processes records",
        "attachments": "backends hardware model netlink pod_files processes records",
        "api": "attachments model",
        "": "api attachments common/netlink model processes",
    },
    "deviceplugin/datapath/ ": {  # shared by the programs that move packets, which follow
        "virtqueue": "",
        "vhost_user": "virtqueue",
        "memory_guard": "",
        "dpdk": "",
        "worker/engines": "vhost_user virtqueue",
        "worker": "vhost_user worker/engines",
        "switch/offload": "virtqueue",
        "switch/forwarding": "switch/offload virtqueue",
        "switch/ports": "memory_guard switch/forwarding switch/offload vhost_user virtqueue",
        "switch/uplink": "dpdk switch/forwarding switch/offload virtqueue",
        "switch": "switch/forwarding switch/ports switch/uplink",
        "pmd": "dpdk memory_guard",
    },
    " ": {  # a pod's side of a device
        "deviceplugin/guest": "deviceplugin/datapath/vhost_user deviceplugin/datapath/virtqueue",
        "deviceplugin/ping": "deviceplugin/datapath/virtqueue deviceplugin/guest",
    },
}
INCLUDE = re.compile(r'^\s*#\s*include\s*["<]([^">]+)[">]', re.MULTILINE)


def whole(block, name):
    return name if name.startswith("common/") else (block.strip() + name).rstrip("/")


def allowed():
    """The allowed pairs of folders, and the folders in their order."""
    pairs, order = set(), []
    for block, folders in BLOCKS.items():
        for name, includes in folders.items():
            folder = whole(block, name)
            order.append(folder)
            pairs |= {(folder, whole(block, other)) for other in includes.split()}
    return pairs, order


def includes():
    """Pairs of (file, included file of the project, as written) from the product's sources."""
    listed = subprocess.check_output(["git", "ls-files", "common", "cni", "deviceplugin", "tests"], text=True).split()
    files = {file for file in listed if file.endswith((".h", ".cc"))}
    common = {pathlib.PurePath(file).name: file for file in files if file.startswith("common/")}
    for file in sorted(files):
        if file.startswith("tests/"):
            continue
        for written in INCLUDE.findall(pathlib.Path(file).read_text()):
            beside = os.path.normpath(pathlib.PurePath(file).parent / written)
            found = next((name for name in (written, beside, common.get(written)) if name in files), None)
            if found:
                yield file, found, written


def used():
    """The actual pairs of folders, each with an include as its example."""
    pairs = {}
    for file, include, _ in includes():
        pair = str(pathlib.PurePath(file).parent), str(pathlib.PurePath(include).parent)
        if pair[0] != pair[1] and pair[1] != "common":
            pairs.setdefault(pair, f"{file} includes {include}")
    return pairs


def findings():
    for file, include, written in includes():
        if include != written:
            yield f"{file} includes {written}: write {include}"
    may, order = allowed()
    are = used()
    for pair in sorted(may):
        if order.index(pair[1]) >= order.index(pair[0]):
            yield f"{pair[0]} before {pair[1]}: a folder includes only what is above it in the table"
        if pair not in are:
            yield f"{pair[0]} no longer includes {pair[1]}: remove it from the table"
    for pair, example in sorted(are.items()):
        if pair not in may:
            yield f"{example}: {pair[0]} may not include {pair[1]}"


if __name__ == "__main__":
    found = list(findings())
    print("\n".join(found) or "folders: the table allows every include")
    sys.exit(bool(found))
