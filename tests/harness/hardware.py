"""An operator's actions on a node's devices: VFs, drivers, vDPA devices. The addresses are the test machine's."""

import fcntl
import json
import pathlib
import subprocess

VHOST_GET_FEATURES = 0x8008af00   # include/uapi/linux/vhost.h
PCI, VDPA = pathlib.Path("/sys/bus/pci"), pathlib.Path("/sys/bus/vdpa")
VIRTIO_PF = "0000:41:00.0"
VIRTIO_VFS = [f"0000:41:00.{n}" for n in (1, 2, 3, 4)]
PLAIN = "0000:02:00.0"   # a virtio-net function that is not a PF
IGB_PF = "0000:01:00.0"
IGB_VFS = ["0000:01:10.0", "0000:01:10.2", "0000:01:10.4", "0000:01:10.6", "0000:01:11.0", "0000:01:11.2", "0000:01:11.4"]


def run(*arguments, timeout=60):
    return subprocess.run([str(a) for a in arguments], capture_output=True, text=True, check=True, timeout=timeout).stdout


class Hardware:
    def make_vfs(self, pf, count, probe=False):
        device = PCI / "devices" / pf
        (device / "sriov_drivers_autoprobe").write_text("1" if probe else "0")
        (device / "sriov_numvfs").write_text(str(count))

    def vf(self, index, pf=VIRTIO_PF):
        return (PCI / "devices" / pf / f"virtfn{index}").resolve().name

    def driver(self, address):
        link = PCI / "devices" / address / "driver"
        return link.resolve().name if link.exists() else ""

    def bind(self, address, driver):
        self.unbind(address)
        (PCI / "devices" / address / "driver_override").write_text(driver)
        (PCI / "drivers_probe").write_text(address)
        assert self.driver(address) == driver

    def unbind(self, address):
        if self.driver(address):
            (PCI / "devices" / address / "driver" / "unbind").write_text(address)

    def add_vdpa(self, name, parent, *settings, driver="vhost_vdpa"):
        """Makes a vDPA device that is bound to this driver from the start."""
        self._autoprobe(False)
        try:
            run("vdpa", "dev", "add", "name", name, "mgmtdev", parent, *settings)
            (VDPA / "devices" / name / "driver_override").write_text(driver)
            (VDPA / "drivers" / driver / "bind").write_text(name)
        finally:
            self._autoprobe(True)

    @staticmethod
    def _autoprobe(on):
        (VDPA / "drivers_autoprobe").write_text(str(int(on)))

    def add_vf_devices(self, count=2, driver="vhost_vdpa"):
        """Makes VFs under vp-vdpa with one vDPA device each, vdpa0, vdpa1, ...; returns their addresses."""
        self.make_vfs(VIRTIO_PF, count)
        addresses = [self.vf(i) for i in range(count)]
        for i, address in enumerate(addresses):
            self.bind(address, "vp-vdpa")
            self.add_vdpa(f"vdpa{i}", f"pci/{address}", driver=driver)
        return addresses

    def character_device(self, name):
        found = list(pathlib.Path(f"/sys/bus/vdpa/devices/{name}").glob("vhost-vdpa-*"))
        return f"/dev/{found[0].name}" if found else None

    def identity(self, name):
        """An identity of the device that changes only when the device is remade."""
        return pathlib.Path(f"/sys/bus/vdpa/devices/{name}/").stat().st_ino

    def delete_vdpa(self, name, timeout=20):
        run("vdpa", "dev", "del", name, timeout=timeout)

    def vdpa_devices(self):
        return json.loads(run("vdpa", "-j", "dev", "show") or "{}").get("dev", {})

    def vdpa_config(self, name):
        """The device's attributes (mac, mtu, max_vq_pairs, ...), as far as it has them; None if there is no such device."""
        shown = subprocess.run(["vdpa", "-j", "dev", "config", "show", name], capture_output=True, text=True, timeout=60,
                               check=False)
        return json.loads(shown.stdout)["config"][name] if shown.returncode == 0 else None

    def vdpa_features(self, name):
        """The features that the device offers; no process may have it open."""
        bits = bytearray(8)
        with open(self.character_device(name), "rb+", buffering=0) as device:
            fcntl.ioctl(device, VHOST_GET_FEATURES, bits)
        return int.from_bytes(bits, "little")

    def queue_statistics(self, name, queue):
        """The driver's own statistics; the device must be running."""
        [statistics] = json.loads(run("vdpa", "-j", "dev", "vstats", "show", name, "qidx", queue))["vstats"].values()
        return statistics

    def set_link(self, netdev, up):
        run("ip", "link", "set", netdev, "up" if up else "down")

    def pf_netdev(self, pf=VIRTIO_PF):
        return next((PCI / "devices" / pf).glob("virtio*/net/*")).name

    def clear(self):
        for name in self.vdpa_devices():
            self.delete_vdpa(name)
        for pf in (VIRTIO_PF, IGB_PF):
            (PCI / "devices" / pf / "sriov_numvfs").write_text("0")
        self.set_link(self.pf_netdev(), True)
