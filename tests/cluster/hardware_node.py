#!/usr/bin/python3
"""A third node for the test cluster, node3, in the test machine of tests/vm, with a PF that has four VFs.

Usage: hardware_node.py DIR [IMAGE.tar...], while the cluster of up.sh DIR runs. It prints "node3 is ready" and runs until
SIGTERM or the end of its standard input; then it removes the node. Under emulation the node needs a minute or two. A line
"reboot" on its standard input cuts the node's power and restarts it with its disk; "node3 is ready" follows.
"""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "vm"))

from vm import Guest  # noqa: E402

NAME, ADDRESS, LINK = "node3", "198.51.100.13", "vdpa-node3"
PF = "0000:41:00.0"

# The operator's setup of such a machine. The project makes the vDPA devices.
PREPARE = f"""set -e
modprobe -a virtio_net vhost_vdpa virtio_vdpa vp_vdpa veth overlay bridge
echo 0 > /sys/bus/pci/devices/{PF}/sriov_drivers_autoprobe
echo 4 > /sys/bus/pci/devices/{PF}/sriov_numvfs
ip link set $(ls /sys/bus/pci/devices/{PF}/virtio*/net) up
eth=$(basename $(dirname $(grep -l 52:54:00:00:09:01 /sys/class/net/*/address)))
ip link set $eth down
ip link set $eth name uplink || true
ip address add {ADDRESS}/24 dev uplink
ip link set uplink up
mount -t cgroup2 none /sys/fs/cgroup
modprobe -a virtio_blk ext4
"""
DISK = 4 << 30   # bytes, mostly never written


def run(*command, check=True):
    return subprocess.run([str(c) for c in command], check=check, capture_output=True, text=True)


class Node:
    def __init__(self, directory, images):
        self.directory, self.images = directory, images
        self.kubectl = [directory / "bin/kubectl", f"--kubeconfig={directory}/kubeconfig"]
        run("ip", "link", "del", LINK, check=False)
        run("ip", "tuntap", "add", "dev", LINK, "mode", "tap")
        self.guest = None
        self.boot = None
        self.disk = tempfile.NamedTemporaryFile(prefix="vdpa-node3-")
        self.disk.truncate(DISK)

    def start(self):
        run("ip", "link", "set", LINK, "master", "vdpa-test0", "up")
        self.guest = Guest(memory=3072, tap=LINK, disk=self.disk.name)
        self.guest.check(PREPARE)
        if not self.boot:
            self.guest.check("mkfs.ext4 -q /dev/vda")
        home = self.directory / "run" / NAME
        # Container layers are overlays, which can't be on the guest's own overlay.
        self.guest.check(f"mkdir -p {home} {self.directory}/run/log && mount /dev/vda {home} && "
                         f"mount -t tmpfs tmpfs {self.directory}/run/log")
        images = [] if self.boot else self.images   # they are on the disk already
        self.boot = self.guest.check("cat /proc/sys/kernel/random/boot_id").strip()
        self.node = self.guest.start(f"{HERE}/node.sh {self.directory} {NAME} {ADDRESS} "
                                     + " ".join(str(image) for image in images), "node")
        deadline = time.monotonic() + 420
        while not self.ready():
            if not self.node.running() or time.monotonic() > deadline:
                raise SystemExit(f"{NAME} did not become ready:\n{self.node.log()[-3000:]}\n"
                                 + self.guest.run(f"tail -n 30 {self.directory}/run/log/*").output)
            time.sleep(1)

    def ready(self):
        found = run(*self.kubectl, "get", "node", NAME, "-o", "json", check=False)
        if found.returncode != 0:
            return False
        status = json.loads(found.stdout)["status"]
        conditions = status.get("conditions", [])
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        return status.get("nodeInfo", {}).get("bootID") == self.boot and ready

    def reboot(self):
        self.guest.check("sync")   # the files of containerd and the kubelet; the project syncs its own
        self.guest.cut_power()
        self.start()

    def stop(self):
        if self.guest:
            (pathlib.Path(self.directory) / "node3.log").write_text(
                self.guest.run(f"tail -n 200 {self.directory}/run/log/*", 30).output)
            self.guest.close()
        run(*self.kubectl, "delete", "pods", "-A", f"--field-selector=spec.nodeName={NAME}", "--force", "--grace-period=0",
            check=False)
        run(*self.kubectl, "delete", "node", NAME, "--ignore-not-found", check=False)
        run("ip", "link", "del", LINK, check=False)


def main():
    directory = pathlib.Path(sys.argv[1]).resolve()
    images = sys.argv[2:] or sorted((HERE.parents[1] / "build/image").glob("*.tar"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    node = Node(directory, images)
    try:
        node.start()
        print(f"{NAME} is ready", flush=True)
        for line in sys.stdin:
            if line == "reboot\n":
                node.reboot()
                print(f"{NAME} is ready", flush=True)
    finally:
        node.stop()


if __name__ == "__main__":
    main()
