"""These tests run in the test machine, as root, with its VFs; ../test_inside.py starts them there."""

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "harness"))

from hardware import Hardware
from kernel_devices import datapath, igb, simulator  # noqa: F401 (fixtures)
from vendor_nic import VendorNic


def pytest_configure():
    if "vm.agent=" not in pathlib.Path("/proc/cmdline").read_text():
        raise pytest.UsageError("these tests change drivers and VFs: they run in the test machine, see ../test_inside.py")
    os.environ.setdefault("VDPA_BUILD", str(pathlib.Path(__file__).parents[3] / "build" / "gcc"))


@pytest.fixture(scope="session", autouse=True)
def hugepages():
    """Huge pages: virtio-user needs few memory regions, and devices need memory that doesn't move."""
    for node in "01":
        pathlib.Path(f"/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages").write_text("80")
    if not os.path.ismount("/dev/hugepages"):
        subprocess.run(["mount", "-t", "hugetlbfs", "none", "/dev/hugepages"], check=True)


@pytest.fixture
def directory():
    with tempfile.TemporaryDirectory(prefix="vdpa-", ignore_cleanup_errors=True) as path:
        yield pathlib.Path(path)


@pytest.fixture
def node():
    """The machine's devices, without VFs and vDPA devices before and after."""
    machine = Hardware()
    machine.clear()
    yield machine
    machine.clear()


@pytest.fixture
def vendor_nic(node):
    """Functions under the names of vendors' drivers, without VFs at first."""
    nic = VendorNic(node)
    yield nic
    zero_macs = nic.zero_macs()
    nic.unload()
    assert zero_macs == 0, "the kernel's mlx5_vdpa may crash there"
