"""The edge of the datapath that the plugin sees: it takes the set and reports health."""

import time
from concurrent import futures

import grpc

from rpc import datapath


class FakeDatapath(datapath.DatapathServicer):
    def __init__(self, directory):
        self.path = directory / "run" / "datapath.sock"
        self.sets = []
        self.changes = []   # messages for the watchers after the first
        self.server = None

    def start(self):
        self.path.parent.mkdir(exist_ok=True)
        self.path.unlink(missing_ok=True)
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        datapath.add_DatapathServicer_to_server(self, self.server)
        self.server.add_insecure_port(f"unix:{self.path}")
        self.server.start()
        return self

    def stop(self):
        self.server.stop(None).wait()

    def SetDevices(self, request, context):
        self.sets.append(request)
        self.changes.append(self.everything())
        return datapath.SetDevicesResponse()

    def everything(self):
        message = datapath.WatchResponse()
        for resource in self.sets[-1].resources:
            for device in resource.devices:
                message.devices.add(id=device.id, resource=resource.name, healthy=True)
        return message

    def Watch(self, request, context):
        sent = len(self.changes)
        yield self.everything()
        while context.is_active():
            if sent < len(self.changes):
                yield self.changes[sent]
                sent += 1
            time.sleep(0.01)

    def report(self, device, healthy, reason=""):
        message = datapath.WatchResponse()
        message.devices.add(id=device, resource="vdpa.io/nic", healthy=healthy, reason=reason)
        self.changes.append(message)
