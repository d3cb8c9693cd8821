"""Archives that depend on the contents of the files, on which are programs, and on SOURCE_DATE_EPOCH alone."""

import gzip
import hashlib
import os
import pathlib
import subprocess
import tarfile
import tempfile


def epoch():
    return int(os.environ["SOURCE_DATE_EPOCH"])


def tree(root):
    """The files and folders below a folder, in an order of their own, as paths relative to it."""
    return sorted(path.relative_to(root) for path in pathlib.Path(root).rglob("*"))


def tarball(root, prefix, out):
    """Packs a folder's files below `prefix`. Links are packed as what they lead to."""
    with open(out, "wb") as file, gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=9, mtime=0) as compressed, \
            tarfile.open(fileobj=compressed, mode="w", format=tarfile.GNU_FORMAT, dereference=True) as archive:
        for path in tree(root):
            if (root / path).is_file():
                archive.add(root / path, f"{prefix}/{path}", recursive=False, filter=_reproducible)


def _reproducible(member):
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = epoch()
    member.mode = _mode(member.mode)
    return member


def _mode(found):
    """The mode without what the umask of the one who made the file left of it."""
    return 0o755 if found & 0o100 else 0o644


def debian_package(root, name, version, description, fields, out):
    """Makes a Debian package of a folder. The programs in it are linked statically: it depends on nothing. `fields`: more of
    its control file, by their names."""
    with tempfile.TemporaryDirectory() as work:
        staged = pathlib.Path(work)
        (staged / "DEBIAN").mkdir()
        sums = []
        for path in tree(root):
            target = staged / path
            if (root / path).is_dir():
                target.mkdir()
                continue
            target.write_bytes((root / path).read_bytes())
            target.chmod(_mode((root / path).stat().st_mode))
            sums.append(f"{hashlib.md5(target.read_bytes(), usedforsecurity=False).hexdigest()}  {path}\n")
        size = sum((staged / path).stat().st_size + 1023 >> 10 for path in tree(root) if (root / path).is_file())
        architecture = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
        (staged / "DEBIAN/md5sums").write_text("".join(sums))
        (staged / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
            f"Maintainer: the authors of vDPA for Kubernetes\nInstalled-Size: {size}\nSection: net\nPriority: optional\n"
            + "".join(f"{name}: {value}\n" for name, value in fields.items()) +
            f"Description: {description}\n")
        for path in [staged, *staged.rglob("*")]:
            if path.is_dir() or path.parent.name == "DEBIAN":
                path.chmod(0o755 if path.is_dir() else 0o644)
            os.utime(path, (epoch(), epoch()))
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zxz", "--build", staged, out], check=True,
                       stdout=subprocess.DEVNULL)
