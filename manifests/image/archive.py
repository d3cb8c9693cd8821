"""Packs a directory as an image of one layer: archive.py ROOT NAME:TAG OUT.tar. An OCI archive that has the image's name
with it: `ctr -n k8s.io images import OUT.tar` and `podman load -i OUT.tar` need no other argument. The same directory gives
the same bytes, whatever the owners, times and umask of its files; SOURCE_DATE_EPOCH (default 0) is the time at which the image
says that it was made."""

import datetime
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile

# Architectures as the Linux kernel names them, and as images do.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def main():
    root, name, out = sys.argv[1:]
    made = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.UTC)
    image = Image(out + ".new")
    unpacked, layer = image.add_layer(root)
    config = image.add("config", {
        "created": made.strftime("%Y-%m-%dT%H:%M:%SZ"), "architecture": ARCHITECTURES[os.uname().machine], "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [unpacked]},
        "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["sleep", "2147483647"]}})
    manifest = image.add("manifest", {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [layer]})
    # containerd and podman read the first of these annotations, skopeo and OCI's specification the second.
    manifest["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    image.close(manifest)
    os.replace(out + ".new", out)
    print(manifest["digest"])


class Image:
    """An OCI image layout in a tar archive; its blobs are named by their contents."""

    def __init__(self, path):
        self.archive = tarfile.open(path, "w")
        self._file("oci-layout", {"imageLayoutVersion": "1.0.0"})

    def add_layer(self, root):
        """Returns the digest of the packed directory, and the descriptor of the layer, which is compressed."""
        packed = io.BytesIO()
        unpacked = hashlib.sha256()
        with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=6, mtime=0) as compressed, \
                tarfile.open(fileobj=_Hashed(compressed, unpacked), mode="w|", bufsize=1 << 20) as layer:
            add_tree(layer, root)
        return f"sha256:{unpacked.hexdigest()}", self._blob("application/vnd.oci.image.layer.v1.tar+gzip", packed.getvalue())

    def add(self, kind, content):
        """Returns the descriptor of a JSON document."""
        return self._blob(f"application/vnd.oci.image.{kind}.v1+json", _json(content))

    def close(self, *manifests):
        self._file("index.json", {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                                  "manifests": manifests})
        self.archive.close()

    def _blob(self, media_type, content):
        digest = hashlib.sha256(content).hexdigest()
        self._file(f"blobs/sha256/{digest}", content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def _file(self, name, content):
        data = content if isinstance(content, bytes) else _json(content)
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self.archive.addfile(reproducible(member), io.BytesIO(data))


class _Hashed:
    """A file that hashes everything that is written to it."""

    def __init__(self, file, digest):
        self.file, self.digest = file, digest

    def write(self, data):
        self.digest.update(data)
        return self.file.write(data)


def reproducible(member):
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = "root"
    if not member.issym() and not member.mode & 0o1000:   # /tmp stays everybody's
        member.mode = 0o755 if member.mode & 0o100 else 0o644
    return member


def add_tree(archive, root):
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files + [f for f in folders if os.path.islink(os.path.join(folder, f))] + ["."]):
            path = os.path.normpath(os.path.join(folder, name))
            archive.add(path, os.path.relpath(path, root), recursive=False, filter=reproducible)


def _json(content):
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


if __name__ == "__main__":
    main()
