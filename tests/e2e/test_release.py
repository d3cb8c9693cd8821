"""The release files of build/dist, from which this cluster is installed, and the commands by which release.md checks and
installs them."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile

import pytest
import yaml
from cluster import CACHE, DIRECTORY, DIST, NAMESPACE, ROOT, OnNode
from support import wait_until

sys.path.insert(0, str(ROOT / "manifests/release"))

import pack

DOCUMENT = (ROOT / "manifests/release.md").read_text()
VERSION = re.search(r"^ *version: '(.*)',", (ROOT / "meson.build").read_text(), re.MULTILINE)[1]
HELM = CACHE / "helm/bin/helm"
PACKAGES = [f"vdpactl_{VERSION}_amd64.deb", f"vdpa-cni_{VERSION}_amd64.deb"]


def command(start):
    """A command of the document, with its arguments."""
    [line] = {line.strip() for line in DOCUMENT.splitlines() if line.startswith(start)}
    return line


def run(text, **options):
    done = subprocess.run(["bash", "-euc", text], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{text}: {done.stdout}{done.stderr}"
    return done.stdout


def provenance():
    return json.loads((DIST / "provenance.intoto.json").read_text())["predicate"]["buildDefinition"]


def archived():
    """The image's index, manifest and configuration."""
    with tarfile.open(DIST / f"vdpa-{VERSION}-image.tar") as archive:
        def read(descriptor):
            content = archive.extractfile("blobs/" + descriptor["digest"].replace(":", "/")).read()
            assert hashlib.sha256(content).hexdigest() == descriptor["digest"].removeprefix("sha256:")
            return json.loads(content)
        [described] = json.load(archive.extractfile("index.json"))["manifests"]
        manifest = read(described)
        return described, manifest, read(manifest["config"])


def test_the_document_lists_the_files():
    listed = {name for row in re.findall(r"^\| (`.*?) \|", DOCUMENT, re.MULTILINE) for name in re.findall("`([^`]+)`", row)}
    assert listed == {file.name for file in DIST.iterdir()}


def test_the_files_can_be_checked():
    checked = run(command("sha256sum -c"), cwd=DIST).splitlines()
    assert {line.removesuffix(": OK") for line in checked} == {file.name for file in DIST.iterdir()} - {"SHA256SUMS"}
    stated = run(command("jq -r '.subject"), cwd=DIST).splitlines()
    assert {line.removesuffix(": OK") for line in stated} == \
        {file.name for file in DIST.iterdir()} - {"SHA256SUMS", "provenance.intoto.json"}
    dirty = run("git status --porcelain", cwd=ROOT).strip()
    commit = run(command("jq -r '.predicate"), cwd=DIST).strip()
    assert commit == ("null" if dirty else run("git rev-parse HEAD", cwd=ROOT).strip())


def test_the_same_build_packs_to_the_same_bytes(tmp_path):
    source, *packages = provenance()["resolvedDependencies"]
    commit = ["--commit", source["digest"]["gitCommit"]] if "digest" in source else []
    names = [package["name"] for package in packages if package["uri"].startswith("pkg:deb/")]
    again = tmp_path / "a-folder-with-a-longer-name/dist"
    subprocess.run([sys.executable, "-B", ROOT / "manifests/release/pack.py", ROOT / "build/gcc", again,
                    "--kubectl", DIRECTORY / "bin/kubectl", *commit, "--packages", *names], check=True, umask=0o077,
                   env=os.environ | {"SOURCE_DATE_EPOCH": run("git log -1 --format=%ct", cwd=ROOT).strip()})
    assert (again / "SHA256SUMS").read_text() == (DIST / "SHA256SUMS").read_text()


@pytest.mark.parametrize("arguments, message", [
    (["--image=registry.example/vdpa:0.2.0"], "expected NAME@DIGEST"),
    (["--image=registry.example/vdpa@sha256:12"], "expected NAME@DIGEST"),
])
def test_an_image_without_a_digest_is_refused(arguments, message, tmp_path):
    done = subprocess.run([sys.executable, "-B", ROOT / "manifests/release/pack.py", ROOT / "build/gcc", tmp_path / "dist",
                           "--kubectl", DIRECTORY / "bin/kubectl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and message in done.stderr and not (tmp_path / "dist").exists()


def test_a_release_without_a_chart_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "TOP", tmp_path)
    monkeypatch.setattr(pack, "MANIFESTS", tmp_path / "manifests")
    (tmp_path / "meson.build").write_text((ROOT / "meson.build").read_text())
    release = pack.Release(ROOT / "build/gcc", tmp_path, DIRECTORY / "bin/kubectl", None, None, [])
    with pytest.raises(SystemExit, match="manifests/helm/Chart.yaml is missing"):
        release.pack_chart()
    (tmp_path / "manifests/helm").mkdir(parents=True)
    (tmp_path / "manifests/helm/Chart.yaml").write_text("name: vdpa\nversion: 0.0.9\n")
    with pytest.raises(SystemExit, match=f"version '0.0.9'; expected {re.escape(VERSION)}"):
        release.pack_chart()


def images_of(manifests):
    specs = [o["spec"] if o["kind"] == "Pod" else o["spec"]["template"]["spec"]
             for o in yaml.safe_load_all(manifests) if o and o["kind"] in ("DaemonSet", "Pod")]
    return {c["image"] for spec in specs for c in [*spec.get("initContainers", []), *spec["containers"]]}


def rendered(chart):
    run(f"{HELM} lint --strict {chart}")
    return run(f"{HELM} template vdpa {chart} --namespace {NAMESPACE}")


def test_the_released_chart_renders_as_that_of_the_sources():
    of_sources = run(f"{HELM} template vdpa {ROOT / 'manifests/helm'} --namespace {NAMESPACE}")
    assert rendered(DIST / f"vdpa-{VERSION}.tgz") == of_sources


def test_a_pinned_image_is_the_only_one(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    pinned = f"registry.example:5000/team/vdpa@sha256:{'0123456789abcdef' * 4}"
    release = pack.Release(ROOT / "build/gcc", tmp_path, DIRECTORY / "bin/kubectl", pinned, None, [])
    release.write_rendered("install.yaml", "manifests")
    release.write_rendered("install-hardware.yaml", "manifests/hardware")
    release.pack_chart()
    release.pack_manifests(tmp_path / "staged")
    for name in "install.yaml", "install-hardware.yaml":
        assert images_of((tmp_path / name).read_text()) == {pinned}
    assert images_of(rendered(tmp_path / f"vdpa-{VERSION}.tgz")) == {pinned}
    with tarfile.open(tmp_path / f"vdpa-{VERSION}-manifests.tar.gz") as manifests:
        assert images_of(manifests.extractfile("manifests/samples/pods.yaml").read().decode()) == {pinned}
    with tarfile.open(tmp_path / f"vdpa-{VERSION}.tgz") as chart:
        values = yaml.safe_load(chart.extractfile("vdpa/values.yaml"))
    assert f"{values['image']['repository']}@{values['image']['digest']}" == pinned


def test_the_list_of_software_has_the_image_s_packages_and_programs():
    document = json.loads((DIST / f"vdpa-{VERSION}.spdx.json").read_text())
    packages = {package["SPDXID"]: package for package in document["packages"]}
    names = {identifier: package["name"] for identifier, package in packages.items()}
    related = {(names.get(r["spdxElementId"]), r["relationshipType"], names[r["relatedSpdxElement"]])
               for r in document["relationships"]}
    contained = {other for one, how, other in related if (one, how) == ("vdpa-image", "CONTAINS")}
    with tarfile.open(DIST / f"vdpa-{VERSION}-image.tar") as archive:
        _, manifest, _ = archived()
        with tarfile.open(fileobj=archive.extractfile("blobs/" + manifest["layers"][0]["digest"].replace(":", "/"))) as layer:
            files = layer.getnames()
            status = {name.rpartition("/")[2] for name in files if name.startswith("var/lib/dpkg/status.d/")}
            programs = {name.rpartition("/")[2] for name in files if name.startswith("usr/bin/vdpa")}
            sums = {name: hashlib.sha256(layer.extractfile(f"usr/bin/{name}").read()).hexdigest() for name in programs}
    assert status | programs <= contained and status and programs
    assert {p["name"]: p["checksums"][0]["checksumValue"] for p in packages.values() if p["name"] in programs} == sums
    # The CNI plugin is static: what it contains is not in the image's list of packages.
    assert {("vdpa", "STATIC_LINK", name) for name in ("libc6-dev", "libnghttp2-dev", "libprotobuf-dev")} <= related
    assert {("vdpactl", "STATIC_LINK", name) for name in ("libgrpc-dev", "libssl-dev")} <= related


def test_the_packages_run_on_a_host_without_libraries(tmp_path):
    """Installs both ways, and starts the programs where nothing else is."""
    root = tmp_path / "host"
    for folder in "var/lib/dpkg/updates", "var/lib/dpkg/info", "opt/cni/bin", "usr/local":
        (root / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    assert command("dpkg -i") == f"dpkg -i {' '.join(PACKAGES)}"
    run(command("dpkg -i").replace("dpkg", f"dpkg --root={root} --log={tmp_path}/log --force-script-chrootless"), cwd=DIST)
    run(command("tar -xzf").replace("/usr/local", f"{root}/usr/local"), cwd=DIST)
    for program in "/usr/bin/vdpactl", "/usr/local/bin/vdpactl":
        assert run(f"chroot {root} {program} --version").strip() == VERSION
    for program in "/opt/cni/bin/vdpa", "/usr/local/cni/bin/vdpa":
        assert run(f"chroot {root} {program} --version").strip() == VERSION
    for program in "/usr/bin/kubectl-vdpa", "/usr/local/bin/kubectl-vdpa":
        assert "kubectl vdpa" in run(f"{root}{program} --help")
    pages = {path.name for path in (root / "usr/share/man").rglob("*.gz")}
    assert pages == {f"{path.name}.gz" for path in (ROOT / "manifests/man").iterdir()}
    assert pages == {path.name for path in (root / "usr/local/share/man").rglob("*.gz")}
    assert "vdpa-datapath" in run(f"MANPATH={root}/usr/share/man man vdpa-switch-dpdk")
    completions = {path.relative_to(root / "usr/share").parts[0] for path in (root / "usr/share").rglob("*vdpactl*")}
    assert completions == {"bash-completion", "zsh", "fish", "doc", "man"}


def test_an_imported_image_ends_in_running_pods(cluster):
    described, manifest, _ = archived()
    name = described["annotations"]["io.containerd.image.name"]
    images = {c["image"] for o in yaml.safe_load_all((DIST / "install.yaml").read_text()) if o["kind"] == "DaemonSet"
              for c in o["spec"]["template"]["spec"]["containers"]}
    assert images == {name}
    node = OnNode("node2")
    node.run("ctr", "-n", "k8s.io", "images", "rm", name)
    node.run("bash", "-c", f"cd {DIST} && {command('ctr -n')}")
    cluster.run("label", "node", "node2", "vdpa.io/node=true")
    try:
        wait_until(lambda: (pod := cluster.daemon("vdpa-datapath", "node2")) and cluster.ready(pod, NAMESPACE),
                   lambda: cluster.run("-n", NAMESPACE, "get", "pods", "-o", "wide"), 90, 0.3)
        status = cluster.get("pod", cluster.daemon("vdpa-datapath", "node2"), NAMESPACE)["status"]["containerStatuses"]
        assert {(s["image"], s["imageID"]) for s in status} == {(name, manifest["config"]["digest"])}
        cluster.vdpactl("node2", "drain", "--wait=60")
    finally:
        cluster.run("label", "node", "node2", "vdpa.io/node-")
        cluster.wait_allocatable("node2", 0, timeout=90)
