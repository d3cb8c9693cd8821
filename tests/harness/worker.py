"""vdpa-worker as a process, in front of an engine's socket: a port of a switch, or a device of the kernel."""

import os

from support import BUILD, Program, wait_until
from switch import Control

PROGRAM = BUILD / "deviceplugin/datapath/worker/vdpa-worker"


class Worker(Program):
    """Starts a worker, by default in front of the engine socket self.engine, which another process makes."""

    def __init__(self, directory, *arguments, device="nic-0", queues=1, name="worker", socket_name="vhost.sock",
                 control_name="control.sock", switch_port=None, vhost_vdpa=None, program=PROGRAM, engine=None, **popen):
        self.socket = directory / socket_name
        self.engine = engine or directory / "engine.sock"
        self.control = directory / control_name
        behind = ["--switch-port", switch_port] if switch_port else ["--vhost-vdpa", vhost_vdpa] if vhost_vdpa else \
            ["--engine", self.engine]
        super().__init__(name, [program, "--device", device, "--socket", self.socket, *behind, "--control", self.control,
                                "--queue-pairs", queues, "--log-level", "debug", *arguments], directory, **popen)

    def hello(self):
        """Asks over a connection of its own."""
        control = Control(self.control)
        try:
            return control.call("hello")
        finally:
            control.close()

    def wait_state(self, **expected):
        def reached():
            now = self.hello()
            return all(now[key] == value for key, value in expected.items())
        wait_until(reached, lambda: f"{expected}; is {self.hello()}:\n{self.log()}", 20)

    def wait_ready(self):
        wait_until(self.socket.exists, lambda: f"the pod's socket:\n{self.log()}", 20)
        return self

    def pod_descriptors(self):
        """The number of descriptors that only a pod can have sent to the worker."""
        links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{self.pid}/fd")]
        return sum("memfd:" in link or link == "anon_inode:[eventfd]" for link in links) - 1  # those of its event loop


def kernel_worker(directory, device, path, name="worker", pairs=1, **popen):
    """A worker on a device of the kernel; several have their sockets side by side."""
    return Worker(directory, device=device, vhost_vdpa=path, name=name, queues=pairs, socket_name=f"{name}.sock",
                  control_name=f"{name}.control", **popen)
