"""A fake vdpa-datapath, as the plugin sees it, with answers that a test chooses. It accepts the set of devices, sends each
watcher every device once and then only changes, and reports devices that left the set. It has no devices of its own: each
counts as healthy unless a test sets another state."""

import threading
from concurrent import futures

import grpc

from rpc import datapath

LOOK = 0.2   # seconds between checks whether a watcher has gone


class FakeDatapath(datapath.DatapathServicer):
    def __init__(self, directory):
        self.path = directory / "run" / "datapath.sock"
        self.receiver = datapath.Receiver(version="0.2.0")  # None: acts as release 0.1.0
        self.calls = 0            # SetDevices requests, including refused ones
        self.sets = []            # accepted requests
        self.refusal = None       # (status code, message) with which SetDevices fails
        self.open = threading.Event()   # SetDevices blocks until it is set
        self.open.set()
        self.server = None
        self._states = {}         # id: (resource, healthy, reason)
        self._changed = threading.Condition()

    def start(self):
        """Acts as a new instance, without devices."""
        self.path.parent.mkdir(exist_ok=True)
        self.path.unlink(missing_ok=True)
        self._states = {}
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        datapath.add_DatapathServicer_to_server(self, self.server)
        self.server.add_insecure_port(f"unix:{self.path}")
        self.server.start()
        return self

    def stop(self):
        self.open.set()
        self.server.stop(None).wait()

    def SetDevices(self, request, context):
        self.calls += 1
        self.open.wait()
        if self.refusal:
            context.abort(*self.refusal)
        with self._changed:
            self.sets.append(request)
            self._states = {device.id: self._states.get(device.id, (resource.name, True, ""))
                            for resource in request.resources for device in resource.devices}
            self._changed.notify_all()
        return datapath.SetDevicesResponse(receiver=self.receiver)

    def report(self, device, healthy, reason=""):
        with self._changed:
            self._states[device] = (self._states[device][0], healthy, reason)
            self._changed.notify_all()

    def Watch(self, request, context):
        told, first = {}, True
        while context.is_active():
            with self._changed:
                if not first and self._states == told:
                    self._changed.wait(LOOK)
                now = dict(self._states)
            if first or now != told:
                yield self._difference(told, now)
            told, first = now, False

    @staticmethod
    def _difference(told, now):
        message = datapath.WatchResponse()
        for device, (resource, healthy, reason) in now.items():
            if told.get(device) != (resource, healthy, reason):
                message.devices.add(id=device, resource=resource, healthy=healthy, reason=reason)
        for device in told.keys() - now.keys():
            message.devices.add(id=device, resource=told[device][0], healthy=False, reason="no longer offered", removed=True)
        return message
