"""Packs a release from a build: pack.py BUILD OUT --kubectl PROGRAM [--image NAME@DIGEST] [--commit COMMIT] [--packages
NAME...]. The same build gives the same bytes in any folder; SOURCE_DATE_EPOCH is the time of all files."""

import argparse
import fnmatch
import gzip
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from archives import debian_package, tarball
from contents import MANIFESTS, PACKAGES, Script, in_tarball
from linked import static_packages
from provenance import provenance
from sbom import sbom

TOP = MANIFESTS.parent
NAME = r"[a-z0-9][a-z0-9.-]*(?::\d+)?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+"
# Folders that a cluster's administrator may apply or read, besides what installs.
OTHER_MANIFESTS = "samples", "policies", "nfd", "schema"
PINNED = re.compile(rf"({NAME})@(sha256:[0-9a-f]{{64}})")


def fail(text):
    sys.exit(f"release: {text}")


class Release:
    def __init__(self, build, out, kubectl, image, commit, packages):
        self.build, self.out, self.kubectl, self.commit, self.packages = build, out, kubectl, commit, packages
        self.version = re.search(r"^ *version: '(.*)',", (TOP / "meson.build").read_text(), re.MULTILINE)[1]
        self.image = image
        if image and not PINNED.fullmatch(image):
            fail(f"--image is '{image[:200]}'; expected NAME@DIGEST, such as registry.example/vdpa@sha256:(64 hexadecimal "
                 "digits)")

    def pack(self, work):
        """Makes all files in `out`, which is empty."""
        root, host = work / "image", work / "host"
        digest = self.pack_image(root)
        self.write_rendered("install.yaml", "manifests")
        self.write_rendered("install-hardware.yaml", "manifests/hardware")
        self.pack_chart()
        self.pack_manifests(work / "manifests")
        static = {name: static_packages(self.build, str(pathlib.Path(path).relative_to(self.build)))
                  for name, path in self.programs().items()}
        self.stage(host, static)
        self.pack_host(host)
        self.write(f"vdpa-{self.version}.spdx.json", sbom(self.version, digest, root, static))
        self.write("provenance.intoto.json",
                   provenance(self.version, self.commit, self.image, self.packages, list(self.out.iterdir())))
        self.write("SHA256SUMS", "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
                                         for file in sorted(self.out.iterdir())))
        print(f"the image's digest is {digest}")

    def write(self, name, text):
        (self.out / name).write_text(text)

    def programs(self):
        """The programs of the image by their names."""
        paths = subprocess.check_output([MANIFESTS / "image/vdpa.sh", self.build], text=True).splitlines()
        return {pathlib.Path(path).name: path for path in paths}

    def pack_image(self, root):
        """Returns the digest of its manifest, by which registries name it too if they get the archive as it is."""
        subprocess.run([MANIFESTS / "image/vdpa.sh", self.build, root], check=True)
        archive = self.out / f"vdpa-{self.version}-image.tar"
        return subprocess.check_output([sys.executable, "-B", MANIFESTS / "image/archive.py", root,
                                        f"localhost/vdpa:{self.version}", archive], text=True).strip()

    def write_rendered(self, name, folder):
        self.write(name, self.render(name, folder))

    def render(self, name, folder):
        """Manifests as `kubectl apply -k` applies them."""
        with tempfile.TemporaryDirectory() as work:
            shutil.copytree(MANIFESTS, pathlib.Path(work) / "manifests")
            wanted = [f"resources: [../{folder}]"]
            if self.image:
                repository, digest = PINNED.fullmatch(self.image).groups()
                wanted.append(f"images: [{{name: localhost/vdpa, newName: {repository}, digest: '{digest}'}}]")
            overlay = pathlib.Path(work) / "overlay"
            overlay.mkdir()
            (overlay / "kustomization.yaml").write_text("\n".join(wanted))
            rendered = subprocess.run([self.kubectl, "kustomize", overlay], capture_output=True, text=True, check=False)
        if rendered.returncode != 0:
            fail(f"cannot render {folder}: {rendered.stderr.strip()}")
        return f"# vDPA for Kubernetes {self.version}, rendered from {folder}: kubectl apply -f {name}\n" + rendered.stdout

    def pack_manifests(self, staged):
        """What is applied besides, in folders as in the repository, so that the documents' commands fit both."""
        for name in OTHER_MANIFESTS:
            shutil.copytree(MANIFESTS / name, staged / name)
        (staged / "monitoring.yaml").write_text(self.render("manifests/monitoring.yaml", "manifests/monitoring"))
        if self.image:
            pods = staged / "samples/pods.yaml"
            pods.write_text(pods.read_text().replace(f"localhost/vdpa:{self.version}", self.image))
        tarball(staged, "manifests", self.out / f"vdpa-{self.version}-manifests.tar.gz")

    def pack_chart(self):
        chart = MANIFESTS / "helm"
        try:
            described = (chart / "Chart.yaml").read_text()
        except FileNotFoundError:
            fail(f"{chart.relative_to(TOP)}/Chart.yaml is missing; a release contains the Helm chart")
        named = dict(re.findall(r'^(name|version|appVersion): *"?([^"\s#]+)"?\s*(?:#.*)?$', described, re.MULTILINE))
        for key, expected in ("name", "vdpa"), ("version", self.version), ("appVersion", self.version):
            if named.get(key) != expected:
                fail(f"{chart.relative_to(TOP)}/Chart.yaml has {key} '{named.get(key)}'; expected {expected}, as in "
                     "meson.build")
        with tempfile.TemporaryDirectory() as work:
            staged = pathlib.Path(work) / "chart"
            shutil.copytree(chart, staged, ignore=ignored_by(chart))
            if self.image:
                self.pin_chart(staged / "values.yaml")
            tarball(staged, "vdpa", self.out / f"vdpa-{self.version}.tgz")

    def pin_chart(self, values):
        """Makes the image of --image the default of the chart's values."""
        repository, digest = PINNED.fullmatch(self.image).groups()
        text = values.read_text()
        for key, value in ("repository", repository), ("digest", digest):
            text, found = re.subn(rf'^(  {key}:) *("[^"]*"|[^\s#]*)', rf'\1 "{value}"', text, count=1, flags=re.MULTILINE)
            if not found:
                fail(f"manifests/helm/values.yaml has no image.{key}, which --image sets")
        values.write_text(text)

    def stage(self, host, static):
        """Makes the files of each package, with their paths on a host, below a folder of its name."""
        for package, (_, files, pages) in PACKAGES.items():
            for path, source in files.items():
                target = host / package / path
                target.parent.mkdir(parents=True, exist_ok=True)
                source.make(self.build, target)
            for page in pages:
                target = host / package / f"usr/share/man/man{page[-1]}/{page}.gz"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(gzip.compress((MANIFESTS / "man" / page).read_bytes(), mtime=0))
            documents = host / package / f"usr/share/doc/{package}"
            documents.mkdir(parents=True)
            programs = [pathlib.PurePath(path).name for path in files if pathlib.PurePath(path).name in static]
            (documents / "copyright").write_text(copyright_of(set().union(*(static[name] for name in programs))))

    def pack_host(self, host):
        architecture = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
        whole = host / "tarball"
        for package, (description, files, _) in PACKAGES.items():
            root = host / package
            fields = {"Recommends": "python3"} if any(isinstance(file, Script) for file in files.values()) else {}
            debian_package(root, package, self.version, description, fields,
                           self.out / f"{package}_{self.version}_{architecture}.deb")
            for path in root.rglob("*"):
                if path.is_file():
                    target = whole / in_tarball(str(path.relative_to(root)))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, target)
        tarball(whole, f"vdpa-{self.version}", self.out / f"vdpa-{self.version}-linux-{architecture}.tar.gz")


def ignored_by(chart):
    """What its .helmignore leaves out, as Helm does, for shutil.copytree: files by name or, with a slash, by path. Helm's
    patterns can do more."""
    lines = map(str.strip, (chart / ".helmignore").read_text().splitlines())
    patterns = [line for line in lines if line and not line.startswith("#")]

    def ignored(folder, names):
        below = pathlib.Path(folder).relative_to(chart)
        return [name for name in names for pattern in patterns
                if fnmatch.fnmatchcase(str(below / name) if "/" in pattern else name, pattern)]
    return ignored


def copyright_of(packages):
    """The licence of the programs, then those of the libraries that they contain."""
    text = (TOP / "LICENSE").read_text()
    for package in sorted(packages):
        text += f"\n\n--- Contains parts of Debian's {package}:\n\n"
        text += pathlib.Path(f"/usr/share/doc/{package}/copyright").read_text()
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--kubectl", required=True)
    parser.add_argument("--image")
    parser.add_argument("--commit")
    parser.add_argument("--packages", nargs="*", default=[])
    arguments = parser.parse_args()
    release = Release(arguments.build.resolve(), arguments.out, arguments.kubectl, arguments.image, arguments.commit,
                      arguments.packages)
    os.umask(0o022)   # of the image's files, and of those that strip and dpkg-deb make
    # Whole or not at all.
    new = arguments.out.with_name(arguments.out.name + ".new")
    for old in new, arguments.out:
        shutil.rmtree(old, ignore_errors=True)
    new.mkdir(parents=True)
    release.out = new
    with tempfile.TemporaryDirectory() as work:
        release.pack(pathlib.Path(work))
    new.rename(arguments.out)


if __name__ == "__main__":
    main()
