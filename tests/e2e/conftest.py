"""One cluster for the whole run, with the project installed from the release files as an operator would."""

import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from cluster import DIRECTORY, DIST, PORTS, ROOT, Cluster, OnNode, install, network
from support import wait_until

IMAGES = ROOT / "build" / "image"
STEPS = pytest.StashKey()


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes minutes; run only by ./run soak cluster")


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash.get(STEPS, [])
    if rows:
        terminalreporter.section("packets lost while pods exchange them")
    for row in rows:
        terminalreporter.write_line("{:<50} {:>10} {:>8}  {}".format(*row))


@pytest.fixture
def steps(request):
    """Rows for the summary at the end: step, packets, lost packets, remarks."""
    return request.config.stash.setdefault(STEPS, [("step", "packets", "lost", "")])


@pytest.fixture(scope="session")
def bare_cluster():
    scripts = ROOT / "tests" / "cluster"
    subprocess.run([scripts / "down.sh", DIRECTORY], check=False, capture_output=True)
    try:
        others = [path for path in sorted(IMAGES.glob("*.tar")) if path.name != "vdpa.tar"]
        images = [*DIST.glob("*-image.tar"), *others, *sorted(IMAGES.glob("next/*.tar"))]
        subprocess.run([scripts / "up.sh", DIRECTORY, *images], check=True, timeout=180)
        yield Cluster()
    finally:
        subprocess.run([scripts / "down.sh", DIRECTORY], check=True, timeout=120)


@pytest.fixture(scope="session")
def files_before(bare_cluster):
    """The files on node1 before the project was installed."""
    return OnNode("node1").files()


@pytest.fixture(scope="session")
def cluster(bare_cluster, files_before):
    install(bare_cluster, "manifests", None, ["node1"])
    bare_cluster.apply(network())
    bare_cluster.wait_allocatable("node1", PORTS)
    return bare_cluster


@pytest.fixture(autouse=True)
def no_pods_left(cluster):
    """Each test starts with every device free."""
    yield
    names = [p["metadata"]["name"] for p in cluster.get("pods")["items"]]
    if names:
        cluster.delete(*names, force=True)
    if cluster.daemon("vdpa-datapath", "node1") is None:   # a test has uninstalled it
        return
    wait_until(lambda: not any(a["attached"] for a in cluster.vdpactl("node1", "attachments")),
               lambda: f"no attachment left: {cluster.vdpactl('node1', 'attachments')}", 30, 0.2)
