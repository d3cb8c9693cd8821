"""The test machine's NICs and drivers: the assumptions of the other tests in this folder."""

import os
import stat
import subprocess

import pytest
from hardware import IGB_PF, IGB_VFS, PCI, VIRTIO_PF, VIRTIO_VFS, run


def is_character_device(path):
    return stat.S_ISCHR(os.stat(path).st_mode)


def test_virtio_vfs_on_the_kernels_vdpa_driver(node):
    assert node.add_vf_devices(4) == VIRTIO_VFS
    assert (PCI / "devices" / VIRTIO_VFS[0] / "numa_node").read_text() == "1\n"
    assert {name: device["mgmtdev"] for name, device in node.vdpa_devices().items()} == {
        f"vdpa{n}": f"pci/{vf}" for n, vf in enumerate(VIRTIO_VFS)}
    assert all(is_character_device(node.character_device(f"vdpa{n}")) for n in range(4))


def test_igb_vfs(node):
    node.make_vfs(IGB_PF, 7)
    assert [node.vf(n, IGB_PF) for n in range(7)] == IGB_VFS
    assert (PCI / "devices" / IGB_VFS[6] / "device").read_text() == "0x10ca\n"
    assert node.driver(IGB_VFS[0]) == ""


def test_the_simulator(node):
    node.add_vdpa("sim0", "vdpasim_net", "mac", "02:00:00:00:00:01")
    path = node.character_device("sim0")
    assert is_character_device(path)
    assert node.vdpa_config("sim0")["mac"] == "02:00:00:00:00:01"
    node.delete_vdpa("sim0")
    assert not os.path.exists(path)


def test_the_vendors_drivers_of_the_test_nic(node, vendor_nic):
    """The result of `vdpa dev add` for each, as with the driver of Linux 6.12 of the same name."""
    mlx5, _, ifcvf, octep = vendor_nic.bind_vfs("mlx5_core", "pds_core", "ifcvf", "octep_vdpa")
    sfs = vendor_nic.bind_scalable_functions()
    assert sfs == ["mlx5_core.sf.0", "mlx5_core.sf.1"]
    assert "PCI_ID=15B3:101E\n" in (PCI / "devices" / mlx5 / "uevent").read_text()

    def added(parent, *settings):
        node.add_vdpa("nic", parent, *settings)
        told = node.vdpa_config("nic")
        node.delete_vdpa("nic")
        return told
    mac = "02:00:00:00:00:01"
    for parent in f"pci/{mlx5}", *(f"auxiliary/{sf}" for sf in sfs):
        bare = added(parent)
        assert "mac" not in bare and (bare["max_vq_pairs"], bare["mtu"]) == (1, 1500)
        assert added(parent, "mac", mac)["mac"] == mac
        several = added(parent, "max_vqp", "4", "mtu", "9000")
        assert (several["max_vq_pairs"], several["mtu"]) == (4, 9000)
        assert added(parent)["mtu"] == 9000, "it is the port's"
    pds = "auxiliary/pds_core.vDPA.2"
    assert added(pds, "mac", mac)["mac"] == mac
    bare = added(pds)
    assert (bare["mac"], bare["max_vq_pairs"]) == ("52:54:00:00:0a:01", 4)
    assert added(f"pci/{ifcvf}")["mac"] == "52:54:00:00:0a:02"
    assert added(f"pci/{octep}")["mac"] == "52:54:00:00:0a:03"
    for parent in f"pci/{ifcvf}", f"pci/{octep}":
        with pytest.raises(subprocess.CalledProcessError) as refused:
            node.add_vdpa("nic", parent, "mac", mac)
        assert "attributes are not supported" in refused.value.stderr + refused.value.stdout


def test_frames_pass_between_two_vfs(node):
    """VF 0 and VF 1 are wired to each other; both have the kernel's virtio driver here."""
    node.make_vfs(VIRTIO_PF, 2)
    try:
        for n, vf in enumerate(VIRTIO_VFS[:2]):
            node.bind(vf, "virtio-pci")
            netdev = next((PCI / "devices" / vf).glob("virtio*/net/*")).name
            run("ip", "netns", "add", f"side{n}")
            run("ip", "link", "set", netdev, "netns", f"side{n}")
            run("ip", "-n", f"side{n}", "link", "set", netdev, "up")
            run("ip", "-n", f"side{n}", "address", "add", f"192.0.2.{n + 1}/24", "dev", netdev)
        run("ip", "netns", "exec", "side0", "ping", "-c", 3, "-i", 0.2, "-w", 30, "192.0.2.2")
    finally:
        for n in range(2):
            subprocess.run(["ip", "netns", "del", f"side{n}"], check=False)
