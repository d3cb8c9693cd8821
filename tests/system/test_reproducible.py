"""Objects that are compiled in two folders are the same: `./run release --verify` compares all programs in this way."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from support import ROOT

BUILD = ROOT / "build/gcc"   # the build that is released, whichever build the tests run
# Small ones of every part, and code that protoc made.
SOURCES = [
    "../../cni/network_paths.cc", "../../common/log.cc", "../../common/mac_address.cc", "../../common/unix_socket.cc",
    "../../common/vlan_ranges.cc", "../../deviceplugin/ctl/table.cc", "../../deviceplugin/discovery/directory.cc",
    "../../deviceplugin/datapath/memory_guard/memory_guard.cc", "../../deviceplugin/datapath/vhost_user/memory_table.cc",
    "common/control.pb.cc",
]


def commands():
    known = {entry["file"]: entry for entry in json.loads((BUILD / "compile_commands.json").read_text())}
    return [known[source] for source in SOURCES]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two copies of the sources and of what the build made of them, in paths of different lengths."""
    made = []
    for name in "a", "another-folder/below":
        top = tmp_path_factory.mktemp("copy") / name
        for folder in "cni", "common", "deviceplugin":
            shutil.copytree(ROOT / folder, top / folder)
        for file in [*BUILD.glob("c*/*.pb.h"), *BUILD.glob("c*/*.pb.cc")]:
            target = top / "build/gcc" / file.relative_to(BUILD)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        made.append(top / "build/gcc")
    return made


@pytest.mark.parametrize("entry", commands(), ids=lambda entry: re.sub(r"[./]+", "-", entry["file"]).strip("-"))
def test_an_object_is_the_same_in_two_folders(entry, folders):
    compile = [word for word in shlex.split(entry["command"]) if word != "ccache"]
    objects = []
    for folder in folders:
        made = folder / entry["output"]
        made.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(compile, cwd=folder, check=True)
        # The paths of sources are in the debugging information, which no released program has.
        subprocess.run(["strip", "--strip-debug", made], check=True)
        objects.append(made.read_bytes())
    assert objects[0] == objects[1]


def test_an_image_depends_only_on_the_contents_of_its_folder(tmp_path):
    digests, archives = [], []
    for i, name in enumerate(["a", "another-folder/below"]):
        root = tmp_path / name
        for file in ("etc/passwd", "usr/bin/program") if i else ("usr/bin/program", "etc/passwd"):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(f"{file}\n")
            os.utime(root / file, (i * 1000, i * 1000))
            os.chown(root / file, i * 65534, i * 65534)
        (root / "bin").symlink_to("usr/bin")
        archive = tmp_path / f"{i}.tar"
        digests.append(subprocess.check_output([sys.executable, "-B", ROOT / "manifests/image/archive.py", root,
                                                "localhost/test:1", archive]))
        archives.append(archive.read_bytes())
    assert digests[0] == digests[1] and archives[0] == archives[1]
