"""A device plugin under the measuring kubelet, for the measurements."""

import json
import subprocess

from support import BUILD

KUBELET = BUILD / "tests/bench/measuring-kubelet"
FLOOR = BUILD / "tests/bench/floor-plugin"


class MeasuredPlugin:
    """It runs until the context ends; result is what the kubelet measured. Its network namespace is its own."""

    def __init__(self, directory, devices, calls, plugin, *options):
        directory.mkdir(exist_ok=True)
        self._kubelet = subprocess.Popen(
            [str(a) for a in ("unshare", "--net", KUBELET, "--dir", directory, "--devices", devices, "--calls", calls,
                              *options, "--", *plugin)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def next_list(self):
        """How many devices the next list has, and when it came."""
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
