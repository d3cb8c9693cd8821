"""The test NIC of ../testnic: functions whose drivers have the names and the rules of vendors' vDPA drivers."""

import pathlib

from hardware import PCI, PLAIN, VIRTIO_PF, run

PARAMETERS = pathlib.Path("/sys/module/testnic/parameters")


class VendorNic:
    def __init__(self, node):
        self.node = node
        run("insmod", "/share/testnic.ko")

    def set(self, **parameters):
        """For functions that are bound from now on: pairs, vport_mac, vport_mtu, scalable_functions."""
        for name, value in parameters.items():
            (PARAMETERS / name).write_text(str(value))
        return self

    def bind_vfs(self, *drivers):
        """Makes VFs under these drivers; returns their addresses. The first is wired to the second, the third to the fourth."""
        self.node.make_vfs(VIRTIO_PF, len(drivers))
        addresses = [self.node.vf(i) for i in range(len(drivers))]
        for address, driver in zip(addresses, drivers):
            self.node.bind(address, driver)
        return addresses

    def bind_scalable_functions(self):
        """Makes two scalable functions of a function of mlx5_core, wired to each other; returns their names."""
        self.node.bind(PLAIN, "mlx5_core")
        return sorted(path.name for path in (PCI / "devices" / PLAIN).glob("mlx5_core.sf.*"))

    def zero_macs(self):
        """How often a device was requested with the feature MAC but without a MAC, while the function had none."""
        return int((PARAMETERS / "zero_macs").read_text())

    def unload(self):
        for name in self.node.vdpa_devices():
            self.node.delete_vdpa(name)
        run("rmmod", "testnic")
        (PCI / "devices" / PLAIN / "driver_override").write_text("\n")
        if not self.node.driver(PLAIN):
            (PCI / "drivers_probe").write_text(PLAIN)
