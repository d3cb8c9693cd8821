"""What an operator does with the test machine's NICs before anything of the project runs: modules, VFs, drivers."""

import json
import shlex

VIRTIO_PF = "0000:41:00.0"
VIRTIO_VFS = [f"0000:41:00.{n}" for n in (1, 2, 3, 4)]
IGB_PF = "0000:01:00.0"
IGB_VFS = ["0000:01:10.0", "0000:01:10.2", "0000:01:10.4", "0000:01:10.6", "0000:01:11.0", "0000:01:11.2", "0000:01:11.4"]

PLAIN = "0000:02:00.0"   # a virtio-net function that is no PF

PCI = "/sys/bus/pci/devices"


class Hardware:
    def __init__(self, guest):
        self._guest = guest

    def load_modules(self):
        self._guest.check("modprobe -a virtio_net igb vhost_vdpa virtio_vdpa vp_vdpa vdpa_sim_net")

    def make_vfs(self, pf, count, probe=False):
        """With probe the kernel's usual driver takes them, else none does."""
        self._guest.check(f"echo {int(probe)} > {PCI}/{pf}/sriov_drivers_autoprobe && echo {count} > {PCI}/{pf}/sriov_numvfs")

    def vfs(self, pf):
        """The addresses of a PF's VFs, by index."""
        links = self._guest.check(f"for i in $(seq 0 127); do readlink {PCI}/{pf}/virtfn$i || break; done")
        return [link.rsplit("/", 1)[-1] for link in links.split()]

    def driver(self, address):
        return self._guest.run(f"readlink {PCI}/{address}/driver | xargs -r basename").output.strip()

    def bind(self, address, driver):
        """To this driver, whatever others would take the device as well."""
        device = f"{PCI}/{address}"
        self._guest.check(f"""set -e
            [ ! -e {device}/driver ] || echo {address} > {device}/driver/unbind
            echo {driver} > {device}/driver_override
            echo {address} > /sys/bus/pci/drivers_probe
            [ "$(basename $(readlink {device}/driver))" = {driver} ]""")

    def unbind(self, address):
        self._guest.check(f"echo {address} > {PCI}/{address}/driver/unbind")

    def add_vdpa(self, name, parent, *settings):
        """On the vhost bus, so that there is a character device; returns its path."""
        self._guest.check(f"""set -e
            echo 0 > /sys/bus/vdpa/drivers_autoprobe
            vdpa dev add name {name} mgmtdev {parent} {shlex.join(settings)}
            echo vhost_vdpa > /sys/bus/vdpa/devices/{name}/driver_override
            echo {name} > /sys/bus/vdpa/drivers/vhost_vdpa/bind
            echo 1 > /sys/bus/vdpa/drivers_autoprobe""")
        return "/dev/" + self._guest.check(f"cd /sys/bus/vdpa/devices/{name} && echo vhost-vdpa-*").strip()

    def delete_vdpa(self, name):
        self._guest.check(f"vdpa dev del {name}")

    def vdpa_devices(self):
        """name: parent and what else the kernel tells."""
        return json.loads(self._guest.check("vdpa -j dev show") or "{}").get("dev", {})

    def load_test_nic(self):
        self._guest.check("[ -e /sys/module/testnic ] || insmod /share/testnic.ko")

    def clear(self):
        for name in self.vdpa_devices():
            self.delete_vdpa(name)
        for pf in (VIRTIO_PF, IGB_PF):
            self._guest.check(f"echo 0 > {PCI}/{pf}/sriov_numvfs")
        self._guest.check(f"""[ ! -e /sys/module/testnic ] || rmmod testnic
            echo > {PCI}/{PLAIN}/driver_override
            [ -e {PCI}/{PLAIN}/driver ] || echo {PLAIN} > /sys/bus/pci/drivers_probe""")
