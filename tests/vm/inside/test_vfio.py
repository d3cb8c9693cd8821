"""DPDK's ifc driver on a function behind VFIO. The function is a VF of QEMU's, whose registers are virtio's, as ifc's are; bind
mounts show Intel's IDs, by which the driver recognises its functions, in the kernel's files. Such a device carries no packets,
since ifc can't start its queues."""

import contextlib
import pathlib
import threading

import pytest
import rpc
from datapath import Datapath, network_namespace, owner
from hardware import PCI, VIRTIO_PF, run
from kubelet import PodResources
from support import wait_until
from vhost_front import FrontEnd

SHARED = 8 << 20


def claims_to_be(address, vendor, device):
    """Mounts over the files that show the function's vendor."""
    for name, value in ("subsystem_vendor", vendor), ("subsystem_device", device):
        file = pathlib.Path(f"/run/{address}-{name}")
        file.write_text(f"0x{value}\n")
        run("mount", "--bind", file, PCI / "devices" / address / name)


@pytest.fixture
def function(node):
    run("modprobe", "vfio-pci")
    # This machine's IOMMU remaps no interrupts.
    pathlib.Path("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts").write_text("1")
    node.make_vfs(VIRTIO_PF, 1)
    address = node.vf(0)
    node.bind(address, "vfio-pci")
    claims_to_be(address, "8086", "001a")
    yield address
    for name in "subsystem_vendor", "subsystem_device":
        run("umount", PCI / "devices" / address / name)


def wait_healthy(datapath, function):
    """DPDK starts slowly under emulation."""
    wait_until(lambda: datapath.device(function).healthy, datapath.log, 240)


@pytest.fixture
def datapath(directory, function):
    with PodResources(directory), Datapath(directory) as running:
        running.wait_serving().set_devices(rpc.datapath.Resource(
            name="vdpa.io/nic", socket=rpc.datapath.SocketOptions(mode=0o666), devices=[rpc.datapath.Device(
                id=function, dpdk=rpc.datapath.DpdkDevice(pci_address=function, driver="ifc"))]))
        wait_healthy(running, function)
        yield running


def pmd_pid(datapath):
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except OSError:
            continue
        if words[0].endswith("/vdpa-pmd") and any(str(datapath.run_dir) in word for word in words):
            return int(path.parent.name)
    return None


def pinned(pid):
    """The memory counted against the process's RLIMIT_MEMLOCK, in bytes."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmLck:"))


def attach(datapath, function, netns):
    """As Multus does, and again while DPDK starts, which is slow under emulation."""
    with contextlib.suppress(rpc.grpc.RpcError):
        return datapath.attach(owner(netns=netns), function)


def test_probed_given_memory_and_taken_away_through_vfio(node, function, datapath):
    with network_namespace() as netns:
        attached = wait_until(lambda: attach(datapath, function, netns), datapath.log, 240, 1)
        assert attached.backend == "dpdk"
        pid = pmd_pid(datapath)
        assert pinned(pid) == 0, "nothing of its own"
        with FrontEnd(datapath.socket(function)) as front:
            front.negotiate()
            front.share(SHARED)
            front.start_ring(0)
            front.start_ring(1)
            wait_until(lambda: pinned(pid) == SHARED, lambda: f"{pinned(pid)}: {datapath.log()}", 60)
            datapath.wait_log(f"the driver cannot start {function}: IFCVF ")
            wait_until(lambda: datapath.attachment(function).state.startswith("failed: "), datapath.log, 30)

        # The kernel requests the function, and waits until it is released.
        taking = threading.Thread(target=node.unbind, args=[function])
        taking.start()
        taking.join(60)
        assert not taking.is_alive(), datapath.log()
        wait_until(lambda: not datapath.device(function).healthy, datapath.log, 30)
        wait_until(lambda: pmd_pid(datapath) != pid, "the process that had it to end", 30)
        node.bind(function, "vfio-pci")
        wait_healthy(datapath, function)
        assert datapath.detach(owner(netns=netns))
