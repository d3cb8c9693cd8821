"""Packs a directory as an image of one layer: archive.py ROOT NAME:TAG OUT.tar, in the format of `docker save`."""

import hashlib
import json
import os
import sys
import tarfile
import tempfile


def reproducible(member):
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = "root"
    return member


def add_tree(archive, root):
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files + [f for f in folders if os.path.islink(os.path.join(folder, f))] + ["."]):
            path = os.path.normpath(os.path.join(folder, name))
            archive.add(path, os.path.relpath(path, root), recursive=False, filter=reproducible)


def main():
    root, name, out = sys.argv[1:]
    with tempfile.TemporaryDirectory() as work:
        layer = os.path.join(work, "layer.tar")
        with tarfile.open(layer, "w") as archive:
            add_tree(archive, root)
        with open(layer, "rb") as packed:
            digest = hashlib.file_digest(packed, "sha256").hexdigest()
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
                  "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["sleep", "2147483647"]}}
        manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
        for file, content in ("config.json", config), ("manifest.json", manifest):
            with open(os.path.join(work, file), "w", encoding="utf-8") as opened:
                json.dump(content, opened)
        with tarfile.open(out + ".new", "w") as archive:
            for file in "config.json", "manifest.json", "layer.tar":
                archive.add(os.path.join(work, file), file, filter=reproducible)
        os.replace(out + ".new", out)


main()
