"""The test machine itself: what the other tests of this folder take for granted."""

import signal
import time

from hardware import IGB_PF, IGB_VFS, PLAIN, VIRTIO_PF, VIRTIO_VFS
from support import ROOT, wait_until


def test_commands_and_programs(guest):
    assert guest.run("echo out; echo err >&2; exit 3") == (3, "out\nerr\n")
    began = time.monotonic()
    assert guest.run("sleep 600", timeout=1).code is None
    assert guest.run("sleep 600 & echo left", timeout=60) == (0, "left\n")   # what runs on delays no answer
    assert time.monotonic() - began < 30

    program = guest.start("bash -c 'trap \"echo bye; exit 5\" TERM; echo hello; while true; do sleep 0.1; done'", "greeter")
    wait_until(lambda: "hello" in program.log(), program.log)
    assert program.running()
    assert program.stop() == 5
    assert "bye" in program.log()
    program = guest.start("sleep 600")
    program.signal(signal.SIGKILL)
    assert program.wait(10) == -signal.SIGKILL


def test_the_share_goes_both_ways_and_the_hosts_files_stay(guest):
    (guest.share / "from-host").write_text("1")
    assert guest.check("cat /share/from-host; echo 2 > /share/from-guest") == "1"
    assert (guest.share / "from-guest").read_text() == "2\n"
    mark = ROOT / "tests" / "vm" / "written-by-the-guest"
    guest.check(f"echo x > {mark} && rm {mark} && touch {mark}")
    assert not mark.exists()


def test_virtio_vfs_on_the_kernels_vdpa_driver(guest, hardware):
    hardware.make_vfs(VIRTIO_PF, 4)
    assert hardware.vfs(VIRTIO_PF) == VIRTIO_VFS
    assert guest.check(f"cat /sys/bus/pci/devices/{VIRTIO_VFS[0]}/numa_node") == "1\n"
    for n, vf in enumerate(VIRTIO_VFS):
        hardware.bind(vf, "vp-vdpa")
        path = hardware.add_vdpa(f"vdpa{n}", f"pci/{vf}")
        assert guest.run(f"test -c {path}").code == 0
    assert {name: device["mgmtdev"] for name, device in hardware.vdpa_devices().items()} == {
        f"vdpa{n}": f"pci/{vf}" for n, vf in enumerate(VIRTIO_VFS)}


def test_igb_vfs(guest, hardware):
    hardware.make_vfs(IGB_PF, 7)
    assert hardware.vfs(IGB_PF) == IGB_VFS
    assert guest.check(f"cat /sys/bus/pci/devices/{IGB_VFS[6]}/device") == "0x10ca\n"
    assert hardware.driver(IGB_VFS[0]) == ""


def test_the_simulator(guest, hardware):
    path = hardware.add_vdpa("sim0", "vdpasim_net", "mac", "02:00:00:00:00:01")
    assert guest.run(f"test -c {path}").code == 0
    assert "mac 02:00:00:00:00:01" in guest.check("vdpa dev config show sim0")
    hardware.delete_vdpa("sim0")
    assert guest.run(f"test -e {path}").code == 1


def test_the_vendors_drivers_of_the_test_nic(guest, hardware):
    """What each makes of `vdpa dev add`, as the driver of Linux 6.12 whose name it has."""
    hardware.load_test_nic()
    hardware.make_vfs(VIRTIO_PF, 4)
    mlx5, pds, ifcvf, octep = VIRTIO_VFS
    for vf, driver in zip(VIRTIO_VFS, ("mlx5_core", "pds_core", "ifcvf", "octep_vdpa")):
        hardware.bind(vf, driver)
    hardware.bind(PLAIN, "mlx5_core")
    assert "PCI_ID=15B3:101E\n" in guest.check(f"cat /sys/bus/pci/devices/{mlx5}/uevent")

    def added(parent, *settings):
        hardware.add_vdpa("nic", parent, *settings)
        told = guest.check("vdpa dev config show nic")
        hardware.delete_vdpa("nic")
        return told
    mac = "02:00:00:00:00:01"
    sfs = ["auxiliary/mlx5_core.sf.0", "auxiliary/mlx5_core.sf.1"]
    for parent in f"pci/{mlx5}", *sfs:
        bare = added(parent)
        assert "mac" not in bare and "max_vq_pairs 1 mtu 1500" in bare
        assert f"mac {mac} " in added(parent, "mac", mac)
        assert "max_vq_pairs 4 mtu 9000" in added(parent, "max_vqp", "4", "mtu", "9000")
        assert "mtu 9000" in added(parent), "it is the port's"
    assert f"mac {mac} " in added("auxiliary/pds_core.vDPA.2", "mac", mac)
    assert "mac 52:54:00:00:0a:01 link up link_announce false max_vq_pairs 4" in added("auxiliary/pds_core.vDPA.2")
    assert "mac 52:54:00:00:0a:02 " in added(f"pci/{ifcvf}") and "mac 52:54:00:00:0a:03 " in added(f"pci/{octep}")
    for parent in f"pci/{ifcvf}", f"pci/{octep}":
        assert "attributes are not supported" in guest.run(f"vdpa dev add name nic mgmtdev {parent} mac {mac}").output


def test_frames_pass_between_two_vfs(guest, hardware):
    """VF 0 and VF 1 are wired to each other, here with the kernel's virtio driver on both."""
    hardware.make_vfs(VIRTIO_PF, 2)
    for n, vf in enumerate(VIRTIO_VFS[:2]):
        hardware.bind(vf, "virtio-pci")
        guest.check(f"""set -e
            i=$(ls /sys/bus/pci/devices/{vf}/virtio*/net)
            ip netns add side{n}
            ip link set $i netns side{n}
            ip -n side{n} link set $i up
            ip -n side{n} address add 192.0.2.{n + 1}/24 dev $i""")
    try:
        guest.check("ip netns exec side0 ping -c 3 -i 0.2 -w 30 192.0.2.2")
    finally:
        guest.check("ip netns del side0 && ip netns del side1")
