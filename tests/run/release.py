"""./run release [--image NAME@DIGEST] [--verify]: writes the files of a release into build/dist; see manifests/release.md."""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

from build import build
from steps import CACHE, fail, python, say, step
from third_party import cluster_programs

DIST = pathlib.Path("build/dist")
KUBECTL = CACHE / "cluster/bin/kubectl"
# A package's name in a field of dpkg: "libc6 (>= 2.36), awk | mawk, python3:any".
NAME = re.compile(r"(?:^|[,|]) *([a-z0-9][a-z0-9+.-]+)")


def release(image=None, verify=False):
    commit = _commit()
    if not commit:
        fail("the tree differs from its last commit, so nobody else could make this release: commit the changes "
             "(git status), or remove them")
    pack(image, commit)
    if verify:
        _verify(image, commit)
    say(f"the release is in {DIST}: {', '.join(sorted(file.name for file in DIST.iterdir()))}")


def dist():
    """Packs the tree as it is, committed or not, for the tests."""
    pack(None, _commit())


def pack(image=None, commit=None):
    build("gcc", "programs")
    cluster_programs()  # kubectl renders the manifests
    step("release", pack_command("build/gcc", DIST, image, commit), pack_environment())


def pack_command(built, out, image, commit, source="."):
    command = python(f"{source}/manifests/release/pack.py", str(built), str(out), "--kubectl", str(KUBECTL),
                     "--packages", *_build_packages())
    return command + (["--image", image] if image else []) + (["--commit", commit] if commit else [])


def pack_environment():
    """Every file gets the time of the commit."""
    return {"SOURCE_DATE_EPOCH": subprocess.check_output(["git", "log", "-1", "--format=%ct"], text=True).strip()}


def _commit():
    """The commit of the source; None if files differ from it."""
    if subprocess.check_output(["git", "status", "--porcelain"], text=True).strip():
        return None
    return subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()


def _build_packages():
    """Debian's packages that the build depends on, with those that they depend on."""
    shown = subprocess.check_output(
        ["dpkg-query", "-W", "-f", "${Package}\\t${Pre-Depends}, ${Depends}\\t${Provides}\\n"], text=True)
    needs, providers = {}, {}
    for package, depends, provides in (line.split("\t") for line in shown.splitlines()):
        needs[package] = NAME.findall(depends)
        for name in [package, *NAME.findall(provides)]:
            providers.setdefault(name, set()).add(package)
    found = set()
    wanted = {*subprocess.check_output(["./run", "packages"], text=True).split(), "binutils", "dpkg", "xz-utils"}
    while wanted:
        for package in providers.get(wanted.pop(), set()) - found:
            found.add(package)
            wanted.update(needs[package])
    return sorted(found)


def _verify(image, commit):
    """Builds and packs the commit in two more folders, without a cache, and compares."""
    sums = {str(DIST): (DIST / "SHA256SUMS").read_text()}
    with tempfile.TemporaryDirectory() as work:
        for name in "first", "second-and-longer":
            source = pathlib.Path(work) / name
            source.mkdir()
            step(f"release-{name}-source", ["bash", "-o", "pipefail", "-ec", f"git archive {commit} | tar -x -C {source}"])
            built = source / "build/gcc"
            step(f"release-{name}-configure", ["meson", "setup", built, source], {"CXX": "g++"})
            step(f"release-{name}-build", ["ninja", "-C", built, "programs"], {"CCACHE_DISABLE": "1"})
            step(f"release-{name}-pack", pack_command(built, source / "dist", image, commit, source), pack_environment())
            sums[name] = (source / "dist/SHA256SUMS").read_text()
    if len(set(sums.values())) != 1:
        lines = [set(text.splitlines()) for text in sums.values()]
        differing = {line.split()[1] for line in set.union(*lines) - set.intersection(*lines)}
        fail(f"builds in {len(sums)} folders differ in {', '.join(sorted(differing))}")
    say(f"builds in {len(sums)} folders gave the same files")


def main():
    parser = argparse.ArgumentParser(prog="./run release", description="writes the files of a release into build/dist")
    parser.add_argument("--image", metavar="NAME@DIGEST", help="the image that the manifests and the chart name")
    parser.add_argument("--verify", action="store_true", help="build everything twice more, in other folders, and compare")
    arguments = parser.parse_args()
    try:
        release(arguments.image, arguments.verify)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
