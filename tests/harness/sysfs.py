"""A generated sysfs, as vdpa-device-plugin reads it, and injected kernel events about it.

No machine's tree was copied: PFs and VFs are linked as those of the test machine's virtio NIC (../vm/inside), and the vdpa bus
has the files that vp_vdpa makes there. No public listing of vendors' vDPA devices was found."""

import pathlib
import shutil
import subprocess
import sys

INJECT = """
import socket, struct, sys, time
text = b"\\0".join(field.encode() for field in sys.argv[1:]) + b"\\0"
kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
message = struct.pack("IHHII", 16 + len(text), 0x10, 1, 0, 0) + text
print(time.monotonic(), flush=True)
kernel.sendto(message, (0, 0))
"""


def inject(pid, subsystem, path, action="change"):
    """Injects a kernel event into this process's network namespace; returns the time by time.monotonic()."""
    done = subprocess.run(["nsenter", "-t", str(pid), "-n", sys.executable, "-c", INJECT, f"{action}@{path}",
                           f"ACTION={action}", f"DEVPATH={path}", f"SUBSYSTEM={subsystem}"],
                          capture_output=True, text=True, check=True)
    return float(done.stdout)


class Sysfs:
    """PFs whose VFs have vDPA devices: 0000:10:00.0 with VFs from 0000:11:00.0 on and so on, each PF on two buses of its
    own."""

    def __init__(self, root, pfs=0, vfs=0):
        self.root = pathlib.Path(root)
        for folder in ("bus/pci/devices", "bus/vdpa/devices", "bus/vdpa/drivers/vhost_vdpa", "class/net", "dev/char",
                       "iommu_groups"):
            (self.root / folder).mkdir(parents=True)
        self.devices = 0
        for n in range(pfs):
            self.add_pf(n, vfs)

    def add_pf(self, n, vfs):
        pf = self.pf(n)
        path = self._function(pf, "virtio-pci", n % 2)
        self.set_link(n, "up")
        (self.root / f"class/net/eth{n}").symlink_to(path / f"net/eth{n}")
        for i in range(vfs):
            vf = self._function(self.vf(n, i), "vp-vdpa", n % 2)
            (path / f"virtfn{i}").symlink_to(vf)
            group = self.root / f"iommu_groups/{self.devices}"
            group.mkdir()
            (vf / "iommu_group").symlink_to(group)
            self.add_vdpa(n, i, f"vdpa{self.devices}", self.devices)
            self.devices += 1

    @staticmethod
    def pf(n):
        return f"0000:{0x10 + 2 * n:02x}:00.0"

    @staticmethod
    def vf(n, i):
        return f"0000:{0x11 + 2 * n:02x}:{i // 8:02x}.{i % 8}"

    def path(self, address):
        return self.root / "devices/pci0000:00" / address

    def _function(self, address, driver, node):
        path = self.path(address)
        path.mkdir(parents=True)
        self.set_driver(address, driver)
        (path / "numa_node").write_text(f"{node}\n")
        (self.root / "bus/pci/devices" / address).symlink_to(path)
        return path

    def set_driver(self, address, driver, ids="1AF4:1041", subsystem="1AF4:1100"):
        line = f"DRIVER={driver}\n" if driver else ""
        (self.path(address) / "uevent").write_text(
            f"{line}PCI_CLASS=20000\nPCI_ID={ids}\nPCI_SUBSYS_ID={subsystem}\nPCI_SLOT_NAME={address}\n")

    def set_link(self, n, state):
        path = self.path(self.pf(n)) / f"net/eth{n}"
        path.mkdir(parents=True, exist_ok=True)
        (path / "operstate").write_text(state + "\n")

    def add_vdpa(self, n, i, name, number):
        path = self.path(self.vf(n, i)) / name
        (path / f"vhost-vdpa-{number}").mkdir(parents=True)
        (path / "driver").symlink_to(self.root / "bus/vdpa/drivers/vhost_vdpa")
        self._character_device(number).symlink_to(path / f"vhost-vdpa-{number}")
        (self.root / "bus/vdpa/devices" / name).symlink_to(path)

    def remove_vdpa(self, n, i, name):
        (self.root / "bus/vdpa/devices" / name).unlink()
        number = next((self.path(self.vf(n, i)) / name).glob("vhost-vdpa-*")).name.rsplit("-", 1)[1]
        self._character_device(number).unlink()
        shutil.rmtree(self.path(self.vf(n, i)) / name)

    def _character_device(self, number):
        return self.root / f"dev/char/511:{number}"

    def remove_vf(self, n, i):
        """Removes a VF partly, as the kernel does for a moment: the PF still links to it."""
        (self.root / "bus/pci/devices" / self.vf(n, i)).unlink()
        shutil.rmtree(self.path(self.vf(n, i)))
