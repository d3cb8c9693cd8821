"""A pod's sandbox as the kubelet, the runtime and Multus handle it: after a failure it is torn down and replaced."""

import itertools
import subprocess
import time

import rpc
from kubelet import Rejected
from node import unhealthy, unreachable
from pod import Pod, frame
from support import wait_until

PATIENCE = 60.0  # seconds; a kubelet retries without a limit
_numbers = itertools.count()


class Sandbox:
    """A pod with one device. Its network namespace and container ID change with every attempt."""

    def __init__(self, node, prefix, resource, device):
        self.node, self.prefix, self.resource, self.device = node, prefix, resource, device
        self.name = f"pod-{next(_numbers)}"
        self.result = None
        self._new_namespace()

    def _new_namespace(self):
        self.container = f"{self.prefix}-{next(_numbers)}"
        self.netns = f"/var/run/netns/{self.container}"
        subprocess.run(["ip", "netns", "add", self.container], check=True)

    def _delete_namespace(self):
        subprocess.run(["ip", "netns", "del", self.container], check=True)

    def allocate(self):
        """Repeats until a pod is admitted: a refusal is final for a pod, and its controller creates another. A kubelet asks
        only for devices that it considers healthy, which may have changed by then."""
        def admitted():
            try:
                return self.node.kubelet.admit(self.name, self.resource, namespace="soak", only=[self.device])
            except Rejected as rejected:
                cause = rejected.cause
                assert cause is None or unreachable(cause) or unhealthy(cause), f"Allocate of {self.device}: {rejected}"
        return wait_until(admitted, f"Allocate of {self.device}", PATIENCE)

    def call(self, command):
        return self.node.call(command, self.container, self.netns, self.device, self.name)

    def added(self, call):
        """Takes the result of an ADD; returns whether the sandbox is up."""
        good, answer = call.answer()
        self.result = answer if good else None
        return good, answer

    def add(self):
        """Repeats until ADD succeeds. Returns the seconds that the last attempt took."""
        deadline = time.monotonic() + PATIENCE
        while True:
            start = time.monotonic()
            good, answer = self.added(self.call("ADD"))
            if good:
                return time.monotonic() - start
            assert time.monotonic() < deadline, f"ADD of {self.device} fails for {PATIENCE} s: {answer}"
            self.fail()

    def fail(self):
        """Replaces the sandbox after a failed ADD."""
        self.delete()
        self._delete_namespace()
        self._new_namespace()

    def delete(self):
        """Repeats DEL until it succeeds, then once more, as runtimes do. Returns the seconds of the first success."""
        wait_until(self._deleted, lambda: f"DEL of {self.device}: {self._failure}", PATIENCE)
        taken = self._taken
        wait_until(self._deleted, lambda: f"second DEL of {self.device}: {self._failure}", PATIENCE)
        return taken

    def _deleted(self):
        start = time.monotonic()
        good, self._failure = self.call("DEL").answer()
        self._taken = time.monotonic() - start
        return good

    def end(self):
        """Removes the sandbox after DEL."""
        self._delete_namespace()
        self.node.kubelet.end(self.name, "soak")

    def use(self, peer):
        """Connects its application, and waits until a frame that it sends to another pod reaches the switch."""
        def connected():
            try:
                return Pod(self.socket, self.mac)
            except OSError:
                return None
        application = wait_until(connected, f"a connection to {self.socket}")
        with application:
            def delivered():
                if application.idle():
                    application.offer(frame(peer.mac, self.mac, b"used"))
                counters = self.node.datapath.stub.Stats(rpc.datapath.StatsRequest(device_ids=[self.device]), timeout=5)
                return any(device.tx_packets for device in counters.devices)  # no answer while the switch is down
            wait_until(delivered, f"a frame from {self.device} in the switch")

    @property
    def socket(self):
        return self.node.directory / f"run/devices/{self.device}/vhost.sock"

    @property
    def mac(self):
        return self.result["interfaces"][-1]["mac"]
