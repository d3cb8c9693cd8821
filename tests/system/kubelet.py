"""A kubelet as device plugins see it: a real gRPC server in the real directory layout, with the habits of the real one."""

import pathlib
import threading
from concurrent import futures

import grpc

from rpc import channel, deviceplugin, podresources
from support import wait_until


class Plugin:
    """What the kubelet keeps for one registered resource."""

    def __init__(self, resource, endpoint):
        self.resource = resource
        self.channel = channel(endpoint)
        self.stub = deviceplugin.DevicePluginStub(self.channel)
        self.options = None
        self.lists = []       # every message of the stream: {device: health}
        self.repeated = []    # devices that a message had more than once
        self.ended = threading.Event()
        self.stream = None

    @property
    def devices(self):
        return self.lists[-1] if self.lists else {}

    def follow(self):
        self.stream = self.stub.ListAndWatch(deviceplugin.Empty())

        def read():
            try:
                for message in self.stream:
                    ids = [d.ID for d in message.devices]
                    self.repeated += [i for i in set(ids) if ids.count(i) > 1]
                    self.lists.append({d.ID: d.health for d in message.devices})
            except grpc.RpcError:
                pass
            self.ended.set()
        threading.Thread(target=read, daemon=True).start()

    def allocate(self, *ids):
        request = deviceplugin.AllocateRequest()
        request.container_requests.add(devices_ids=ids)
        return self.stub.Allocate(request, timeout=5).container_responses[0]

    def prefer(self, available, must=(), size=1):
        request = deviceplugin.PreferredAllocationRequest()
        request.container_requests.add(available_deviceIDs=available, must_include_deviceIDs=must,
                                       allocation_size=size)
        return list(self.stub.GetPreferredAllocation(request, timeout=5).container_responses[0].deviceIDs)


class Kubelet(deviceplugin.RegistrationServicer, podresources.PodResourcesListerServicer):
    """start() deletes every socket in the directory, as a kubelet does; Register dials back before it answers."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory) / "device-plugins"
        self.pod_resources = pathlib.Path(directory) / "pod-resources.sock"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.plugins = {}
        self.registrations = []   # (resource, endpoint)
        self.refusals = 0         # so many Register calls fail first
        self.held = []            # (namespace, pod, resource, device)
        self.questions = 0        # PodResources List calls
        self.servers = []

    def start(self):
        for path in self.directory.iterdir():
            if path.is_socket():
                path.unlink(missing_ok=True)  # the plugin may be making it anew
        self.servers = []
        for path, add, service in (
                (self.pod_resources, podresources.add_PodResourcesListerServicer_to_server, self),
                (self.directory / "kubelet.sock", deviceplugin.add_RegistrationServicer_to_server, self)):
            server = grpc.server(futures.ThreadPoolExecutor(8))
            add(service, server)
            server.add_insecure_port(f"unix:{path}")
            server.start()
            self.servers.append(server)
        return self

    def stop(self):
        """As at SIGTERM: the connections end, the sockets' files stay."""
        for plugin in self.plugins.values():
            if plugin.stream:
                plugin.stream.cancel()
            plugin.channel.close()
        self.plugins = {}
        for server in self.servers:
            server.stop(None).wait()
        self.servers = []
        (self.directory / "kubelet.sock").touch()

    def restart(self):
        self.stop()
        (self.directory / "kubelet.sock").unlink(missing_ok=True)
        return self.start()

    def Register(self, request, context):
        self.registrations.append((request.resource_name, request.endpoint))
        if self.refusals > 0:
            self.refusals -= 1
            context.abort(grpc.StatusCode.INTERNAL, "refused by the test")
        if request.version != "v1beta1" or "/" in request.endpoint:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(request))
        plugin = Plugin(request.resource_name, self.directory / request.endpoint)
        plugin.options = plugin.stub.GetDevicePluginOptions(deviceplugin.Empty(), timeout=2)
        self.plugins[request.resource_name] = plugin
        plugin.follow()
        return deviceplugin.Empty()

    def List(self, request, context):
        self.questions += 1
        response = podresources.ListPodResourcesResponse()
        for namespace, name, resource, device in self.held:
            pod = response.pod_resources.add(name=name, namespace=namespace)
            pod.containers.add(name="app").devices.add(resource_name=resource, device_ids=[device])
        return response

    def wait_plugin(self, resource="vdpa.io/nic", timeout=5.0):
        """The resource's plugin, once its first list is there."""
        wait_until(lambda: resource in self.plugins and self.plugins[resource].lists,
                   lambda: f"{resource} registered and listed; registrations: {self.registrations}", timeout)
        return self.plugins[resource]
