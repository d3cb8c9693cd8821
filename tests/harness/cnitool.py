"""cnitool, the CNI project's own runtime, with libcni's cache of results between its calls."""

import hashlib
import json
import os
import subprocess

from cni import BUILD, NEW_PLUGINS, VARIABLES


def container_of(netns):
    """The container ID that cnitool makes up."""
    return f"cnitool-{hashlib.sha512(netns.encode()).hexdigest()[:20]}"


class Tool:
    """A network "fast" of these plugins, with a /var/lib of its own, where libcni keeps its cache."""

    def __init__(self, directory, netns, plugins, capabilities, arguments=""):
        self.directory, self.netns, self.capabilities, self.arguments = directory, netns, capabilities, arguments
        self.cache = directory / "var-lib" / "cni" / "results"
        for folder in "net.d", "var-lib":
            (directory / folder).mkdir()
        self.write([{**plugin, "capabilities": dict.fromkeys(capabilities, True)} for plugin in plugins])

    def write(self, plugins):
        (self.directory / "net.d" / "10-fast.conflist").write_text(json.dumps(
            {"cniVersion": "1.1.0", "name": "fast", "plugins": plugins}))

    def run(self, command):
        return subprocess.run(
            ["unshare", "--mount", "sh", "-ec", f'mount --bind {self.directory}/var-lib /var/lib; exec "$@"', "sh",
             NEW_PLUGINS / "cnitool", command, "fast", self.netns, "--ifname", "net1"],
            capture_output=True, text=True, timeout=60, check=False, env={
                "PATH": os.environ["PATH"], "NETCONFPATH": str(self.directory / "net.d"), "CNI_ARGS": self.arguments,
                "CNI_PATH": f"{BUILD}/cni:{NEW_PLUGINS}", "CAP_ARGS": json.dumps(self.capabilities),
                "VDPA_CNI_ROOTS": VARIABLES["VDPA_CNI_ROOTS"]})

    def succeed(self, command):
        done = self.run(command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def fail(self, command):
        done = self.run(command)
        assert done.returncode != 0, done.stdout
        return done.stdout + done.stderr

    def cached(self):
        return list(self.cache.iterdir()) if self.cache.exists() else []
