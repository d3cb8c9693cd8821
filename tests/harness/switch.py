"""vdpa-switch, or with an uplink vdpa-switch-dpdk, as a process, and its control channel."""

import json
import socket

from support import BUILD, Program, wait_until

PROGRAM = BUILD / "deviceplugin/datapath/switch/vdpa-switch"
WITH_UPLINKS = BUILD / "deviceplugin/datapath/switch/vdpa-switch-dpdk"


class Refused(Exception):
    """The switch answered a request with an error."""


class Control:
    """The control channel of a switch."""

    def __init__(self, path):
        self.path = path
        self._connection = None

    def raw(self, line):
        """Sends a line to the switch and returns its answer. Skips events."""
        if self._connection is None:
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.settimeout(20)
            self._connection.connect(str(self.path))
            self._lines = self._connection.makefile()
        self._connection.sendall(line + b"\n")
        return next(message for message in map(json.loads, self._lines) if "event" not in message)

    def call(self, operation, **arguments):
        answer = self.raw(json.dumps({"id": 1, "op": operation, "args": arguments}).encode())
        if "error" in answer:
            raise Refused(answer["error"])
        assert answer["id"] == 1
        return answer["ok"]

    def add(self, port, address, **settings):
        """The socket path of a new port."""
        return self.call("add_port", id=port, mac=address, **settings)["socket"]

    def port(self, port):
        return next(p for p in self.call("ports")["ports"] if p["id"] == port)

    def stats(self, port):
        return self.call("stats", ports=[port])["ports"][0]

    def drops(self, port):
        return {reason: count for reason, count in self.stats(port)["drops"].items() if count}

    def wait_connected(self, port, connected=True):
        wait_until(lambda: self.port(port)["connected"] == connected, f"port {port} connected: {connected}")

    def close(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Switch(Control, Program):
    def __init__(self, directory, *arguments, name="switch", queue_pairs=1, wrapper=(), program=None, log_level="debug"):
        Control.__init__(self, directory / f"{name}.sock")
        program = program or (WITH_UPLINKS if any(str(word).startswith("--uplink") for word in arguments) else PROGRAM)
        self.ports_dir = directory / f"{name}-ports"
        Program.__init__(self, name, [
            *wrapper, program, "--name", "vdpa.io-nic", "--control", self.path, "--ports-dir", self.ports_dir,
            "--queue-pairs", queue_pairs, "--log-level", log_level, *arguments], directory)

    def wait_ready(self):
        self.wait_log("switch vdpa.io-nic:")
        return self

    def __exit__(self, *_):
        self.close()
        super().__exit__()
