"""Objects that are compiled in two folders are the same: `./run release --verify` compares all programs in this way."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile

import pytest

from support import ROOT

sys.path.insert(0, str(ROOT / "manifests/release"))

import archives

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
    digests, packed = [], []
    for i, name in enumerate(["a", "another-folder/below"]):
        root = tmp_path / name
        for file in ("etc/passwd", "usr/bin/program") if i else ("usr/bin/program", "etc/passwd"):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(f"{file}\n")
            # Of builders with different umasks.
            (root / file).chmod((0o700 if "bin/" in file else 0o600) if i else (0o755 if "bin/" in file else 0o644))
            (root / file).parent.chmod(0o700 if i else 0o755)
            os.utime(root / file, (i * 1000, i * 1000))
            os.chown(root / file, i * 65534, i * 65534)
        (root / "bin").symlink_to("usr/bin")
        (root / "tmp").mkdir()
        (root / "tmp").chmod(0o1777)
        archive = tmp_path / f"{i}.tar"
        digests.append(subprocess.check_output([sys.executable, "-B", ROOT / "manifests/image/archive.py", root,
                                                "localhost/test:1", archive]))
        packed.append(archive.read_bytes())
    assert digests[0] == digests[1] and packed[0] == packed[1]
    assert layer_modes(tmp_path / "0.tar") == {
        ".": 0o755, "bin": 0o777, "etc": 0o755, "etc/passwd": 0o644, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755,
        "usr/bin/program": 0o755}


def layer_modes(image):
    with tarfile.open(image) as archive:
        [described] = json.load(archive.extractfile("index.json"))["manifests"]
        manifest = json.load(archive.extractfile("blobs/" + described["digest"].replace(":", "/")))
        with tarfile.open(fileobj=archive.extractfile("blobs/" + manifest["layers"][0]["digest"].replace(":", "/"))) as layer:
            return {member.name: member.mode for member in layer}


def test_host_files_do_not_depend_on_the_umask(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    for name, program, text, folder in ("a", 0o755, 0o644, 0o755), ("b", 0o700, 0o600, 0o700):
        (tmp_path / name / "bin").mkdir(parents=True)
        for file, mode in ("bin/program", program), ("text", text):
            (tmp_path / name / file).write_text(f"{file}\n")
            (tmp_path / name / file).chmod(mode)
        (tmp_path / name / "bin").chmod(folder)
        archives.tarball(tmp_path / name, "prefix", tmp_path / f"{name}.tgz")
        archives.debian_package(tmp_path / name, "name", "1", "description", {}, tmp_path / f"{name}.deb")
    for kind in "tgz", "deb":
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes(), kind
