"""A device plugin under the measuring kubelet, for the measurements."""

import json
import os
import subprocess

from support import BUILD

KUBELET = BUILD / "tests/bench/measuring-kubelet"
FLOOR = BUILD / "tests/bench/floor-plugin"
# The program sriovdp of sriov-network-device-plugin, if installed; ./run does not build its module.
SRIOV = os.environ.get("SRIOV_DEVICE_PLUGIN")


def on_node(kubelet, sysfs, plugin):
    """A plugin in a mount namespace, where it finds its kubelet and the kernel's devices at the usual paths."""
    script = ('mount -t tmpfs none /var/lib && mkdir -p /var/lib/kubelet/device-plugins && '
              'mount --bind "$1" /var/lib/kubelet/device-plugins && mount --bind "$2" /sys && '
              'shift 2 && exec "$@" 2> /dev/null')
    return ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", script, "sh", kubelet, sysfs, *plugin]


class MeasuredPlugin:
    """Runs it until the context ends; yields the kubelet's measurements. It has a network namespace of its own."""

    def __init__(self, directory, devices, calls, plugin, *options):
        directory.mkdir(exist_ok=True)
        self._kubelet = subprocess.Popen(
            [str(a) for a in ("unshare", "--net", KUBELET, "--dir", directory, "--devices", devices, "--calls", calls,
                              *options, "--", *plugin)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def next_list(self):
        """The number of devices in the next list, and when it arrived."""
        return json.loads(self._kubelet.stdout.readline())

    def __enter__(self):
        line = self._kubelet.stdout.readline()
        if not line:
            raise SystemExit("the measuring kubelet failed")
        self.result = json.loads(line)
        self.pid = self.result["pid"]
        return self

    def __exit__(self, *_):
        self._kubelet.stdin.close()
        self._kubelet.stdout.close()
        self._kubelet.wait(30)
