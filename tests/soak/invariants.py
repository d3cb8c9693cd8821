"""The invariants of a node at rest, seen from outside: by the kubelet, the kernel, the file system, and the programs'
reports."""

import subprocess

import grpc
import rpc
from support import wait_until

SETTLED = 60.0   # seconds: reconciliation runs every ten, and the back-off of a program that keeps dying is as long
TIDIED = 90.0    # seconds; a plugin that has just started waits sixty
FRAMES = 5       # frames that every running pod must receive from now on


class Invariants:
    def __init__(self, node, pods, traffic):
        self.node, self.pods, self.traffic = node, pods, traffic
        self.files = {}  # the files in the beginning, by configuration
        self.links = self._links()

    def remember(self):
        """Records the state of this configuration at rest, with which every later round is compared."""
        self.wait(compare_files=False)
        self.files[str(self.node.config)] = self._without_strays(self.node.files())

    def wait_tidied(self):
        """Waits until the device information of withdrawn devices is gone, which the plugin removes in its second minute."""
        wait_until(lambda: self._strays(self.node.files()) == set(),
                   lambda: f"these to be gone: {self._strays(self.node.files())}", TIDIED, interval=0.5)

    def wait(self, compare_files=True):
        """Waits until all invariants hold."""
        before = self.traffic.received()

        def differences():
            self.found = [*self._offers(), *self._attachments(), *self._processes(), *self._ports(), *self._kernel(),
                          *self._traffic(before), *(self._files() if compare_files else [])]
            return not self.found
        wait_until(differences, lambda: "; ".join(self.found), SETTLED, interval=0.05)

    def _offers(self):
        """Every device is offered once, by one resource, and is healthy."""
        wanted = self.node.devices()
        for resource, plugin in list(self.node.kubelet.plugins.items()):
            assert not plugin.repeated, f"{resource} lists devices twice: {plugin.repeated}"
            if resource not in wanted:
                if not plugin.ended.is_set():
                    yield f"{resource} is still served"
            elif plugin.ended.is_set():
                yield f"the kubelet's connection to {resource} has ended"
            elif plugin.devices != wanted[resource]:
                yield f"{resource} lists {plugin.devices}"
        for resource in set(wanted) - set(self.node.kubelet.plugins):
            yield f"{resource} isn't registered"

    def _attachments(self):
        try:
            known = self.node.datapath.stub.List(rpc.datapath.ListRequest(), timeout=5)
        except grpc.RpcError as error:
            yield f"vdpa-datapath: {error.details()}"
            return
        wanted = {device for devices in self.node.devices().values() for device in devices}
        if {device.id for device in known.devices} != wanted or len(known.devices) != len(wanted):
            yield f"vdpa-datapath's devices are {[device.id for device in known.devices]}"
        for device in known.devices:
            if not device.healthy:
                yield f"{device.id}: {device.reason}"
        for attachment in known.attachments:
            if attachment.device_id not in self._devices_of_pods():
                yield f"{attachment.device_id} is attached to {attachment.owner.pod_name}"
            elif attachment.state != "running":
                yield f"{attachment.device_id} is {attachment.state}"
        for device in self._devices_of_pods() - {attachment.device_id for attachment in known.attachments}:
            yield f"{device} is no longer attached"

    def _processes(self):
        wanted = ["vdpa-datapath", "vdpa-device-plugin",
                  *(f"vdpa-switch {resource.replace('/', '-')}" for resource in self.node.devices()),
                  *(f"vdpa-worker {device}" for device in self._devices_of_pods())]
        found = self.node.processes()
        for name in wanted:
            if len(found.get(name, [])) != 1:
                yield f"{len(found.get(name, []))} processes {name}"
        for name in set(found) - set(wanted):
            yield f"processes {name}: {found[name]}"

    def _ports(self):
        """A port has the settings of its pod; a free device has no port."""
        for resource in self.node.devices():
            try:
                ports = self.node.ports(resource)
            except OSError as error:
                yield f"the switch of {resource}: {error}"
                continue
            wanted = {pod.device for pod in self.pods if pod.resource == resource}
            if ports != wanted:
                yield f"ports of {resource}'s switch: {sorted(ports)}, not {sorted(wanted)}"

    def _kernel(self):
        """Only the running pods' namespaces exist, and no link is left in that of the programs."""
        names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split("\n")
        left = {name.split()[0] for name in names if name.startswith(self.pods[0].prefix)}
        if left != {pod.container for pod in self.pods}:
            yield f"network namespaces: {sorted(left)}"
        if self._links() != self.links:
            yield f"network devices: {self._links()}"

    def _traffic(self, before):
        for device in list(self.traffic.ended):
            yield f"the session of {device} has ended"
        for device, count in self.traffic.received().items():
            if count < before[device] + FRAMES:
                yield f"{device} received {count - before[device]} frames"

    def _files(self):
        wanted, found = self.files[str(self.node.config)], self._without_strays(self.node.files())
        for path in sorted(set(wanted) | set(found)):
            if wanted.get(path) != found.get(path):
                yield f"{path}: {found.get(path, 'nothing')}, not {wanted.get(path, 'nothing')}"

    def _strays(self, files):
        """Device information of devices that are not offered."""
        offered = {f"devinfo/{resource.replace('/', '-')}-{device}-device.json"
                   for resource, devices in self.node.devices().items() for device in devices}
        return {path for path in files if path.startswith("devinfo/") and path not in offered}

    def _without_strays(self, files):
        strays = self._strays(files)
        return {path: kind for path, kind in files.items() if path not in strays}

    def _devices_of_pods(self):
        return {pod.device for pod in self.pods}

    @staticmethod
    def _links():
        return subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
