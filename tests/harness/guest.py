"""A virtual machine with a vhost-user network interface: QEMU under emulation, a Debian kernel, busybox.

The kernel comes from Debian's package, unpacked once without installing it (into ~/.cache/vdpa/guest).
"""

import fcntl
import gzip
import os
import pathlib
import shutil
import subprocess

from support import BUILD, Program, wait_until

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "vdpa" / "guest"
MODULES = ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "failover",
           "net_failover", "virtio_net"]
# To be followed by what the guest does.
BOOT = """#!/bin/sh
mount -t sysfs sysfs /sys; mount -t proc proc /proc; mount -t devtmpfs devtmpfs /dev
for module in %(modules)s; do insmod /modules/$module.ko; done
[ -e /sys/class/net/eth0 ] || exit 1
echo mac $(cat /sys/class/net/eth0/address) mtu $(cat /sys/class/net/eth0/mtu)
ip link set eth0 up
"""
# Sends one broadcast packet (an ARP request) after another; the kernel counts the packets that come back.
INIT = BOOT + """ip address add 192.0.2.1/24 dev eth0
while true; do
    arping -q -c 1 -w 1 -I eth0 192.0.2.2
    echo received $(cat /sys/class/net/eth0/statistics/rx_packets) sent $(cat /sys/class/net/eth0/statistics/tx_packets)
done
"""
# Runs the host's commands, line by line, and ends each answer by a line with the status.
SHELL = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t sysfs sysfs /sys; mount -t proc proc /proc; mount -t devtmpfs devtmpfs /dev
stty -echo
ip link set lo up
for module in %(modules)s; do insmod /modules/$module.ko; done
echo booted
while read -r line; do eval "$line" 2>&1; echo "status $?"; done
"""


def _kernel():
    """The unpacked kernel package's directory."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not list(CACHE.glob("kernel/boot/vmlinuz-*")):
            depends = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], check=True,
                                     capture_output=True, text=True).stdout
            package = next(line.split()[-1] for line in depends.splitlines() if "Depends: linux-image-" in line)
            subprocess.run(["apt-get", "download", "-q", package], cwd=CACHE, check=True, capture_output=True)
            deb = next(CACHE.glob("linux-image-*.deb"))
            shutil.rmtree(CACHE / "unpacked", ignore_errors=True)
            subprocess.run(["dpkg", "-x", deb, CACHE / "unpacked"], check=True)
            (CACHE / "unpacked").rename(CACHE / "kernel")
            deb.unlink()
    return CACHE / "kernel"


def _initramfs(directory, kernel, name, init):
    root = directory / f"initramfs-{name}"
    for folder in ("bin", "modules", "sys", "proc", "dev"):
        (root / folder).mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", root / "bin/busybox")
    for tool in ("sh", "mount", "insmod", "cat", "ip", "arping", "dd", "nc", "sleep", "echo", "["):
        (root / "bin" / tool).symlink_to("busybox")
    for module in MODULES:
        shutil.copy(next(kernel.glob(f"lib/modules/*/kernel/**/{module}.ko")), root / "modules")
    if init is SHELL:
        shutil.copy(BUILD / "tests/guest/guest-net", root / "bin/guest-net")
    (root / "init").write_text(init % {"modules": " ".join(MODULES)})
    (root / "init").chmod(0o755)
    files = subprocess.run(["find", ".", "-print0"], cwd=root, check=True, capture_output=True).stdout
    archive = subprocess.run(["cpio", "--null", "--create", "--format=newc", "--quiet"], cwd=root, input=files,
                             check=True, capture_output=True).stdout
    path = directory / f"initramfs-{name}.gz"
    path.write_bytes(gzip.compress(archive, 1))
    return path


class Guest(Program):
    def __init__(self, directory, socket, options="", memory="", connection="", name="guest", init=INIT, queues=1,
                 address="02:00:00:00:00:09", **popen):
        """`options` are the device's, `memory` those of its memory, `connection` those of the character device. Without MSI-X
        (vectors=0), since with it QEMU 7.2 under emulation crashes on any vhost-user back-end."""
        kernel = _kernel()
        super().__init__(name, [
            "qemu-system-x86_64", "-machine", "q35,accel=tcg,memory-backend=memory", "-cpu", "max", "-m", "256",
            "-object", f"memory-backend-memfd,id=memory,size=256M,share=on{memory}", "-nodefaults", "-display", "none",
            "-serial", "stdio", *([] if init is SHELL else ["-no-reboot"]), "-kernel", next(kernel.glob("boot/vmlinuz-*")),
            "-initrd", _initramfs(directory, kernel, name, init), "-append", "console=ttyS0 quiet panic=-1",
            "-chardev", f"socket,id=port,path={socket}{connection}", "-netdev",
            f"vhost-user,id=net,chardev=port,queues={queues}",
            "-device", f"virtio-net-pci,netdev=net,mac={address},vectors=0{options}"], directory, **{"stdin": -3, **popen})

    def counter(self, name):
        """The last value that the guest printed for "received" or "sent"."""
        assert self.running(), f"QEMU ended ({self.process.returncode}):\n{self.log()}"
        values = [line.split() for line in self.log().splitlines() if line.startswith("received ")]
        values = [words for words in values if len(words) == 4]
        return int(values[-1][{"received": 1, "sent": 3}[name]]) if values else 0


class Shell(Guest):
    """A guest that runs commands."""

    def __init__(self, directory, socket, **options):
        super().__init__(directory, socket, init=SHELL, stdin=subprocess.PIPE, **options)
        self._read = 0   # characters of the log

    def _wait_line(self, start, timeout):
        """The text up to a line that starts so, and that line's last word."""
        def line():
            assert self.running(), f"QEMU ended ({self.process.returncode}):\n{self.log()}"
            text = self.log()[self._read:]
            at = 0 if text.startswith(start) else text.find("\n" + start) + 1
            end = text.find("\n", at)
            if not text.startswith(start, at) or end < 0:
                return None
            self._read += end + 1
            return text[:at], text[at:end].split()[-1]
        return wait_until(line, lambda: f"'{start}' of {self.name}:\n{self.log()[-2000:]}", timeout, 0.02)

    def wait_booted(self):
        self._wait_line("booted", 120)
        return self

    def begin(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def end(self, timeout=60):
        text, status = self._wait_line("status", timeout)
        assert status == "0", f"{self.name}: status {status}: {text}"
        return text.strip()

    def run(self, command, timeout=60):
        """The output of a command, which must succeed."""
        self.begin(command)
        return self.end(timeout)
