"""A kubelet as device plugins see it: a real gRPC server in the real directory layout, with the habits of the real one."""

import pathlib
import re
import threading
from concurrent import futures

import grpc

from rpc import channel, deviceplugin, podresources
from support import wait_until


class Plugin:
    """What the kubelet keeps for one registered resource."""

    def __init__(self, resource, path):
        self.resource = resource
        self.path = path
        self.channel = channel(path)
        self.stub = deviceplugin.DevicePluginStub(self.channel)
        self.options = None
        self.lists = []       # every message of the stream: {device: health}
        self.repeated = []    # devices that a message had more than once
        self.ended = threading.Event()
        self.stream = None

    @property
    def devices(self):
        return self.lists[-1] if self.lists else {}

    def follow(self, ended):
        """Calls `ended` on a thread of its own when the plugin's stream has ended."""
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
            ended(self)
        threading.Thread(target=read, daemon=True).start()

    def disconnect(self):
        if self.stream:
            self.stream.cancel()
        self.channel.close()

    def allocate(self, *ids):
        request = deviceplugin.AllocateRequest()
        request.container_requests.add(devices_ids=ids)
        return self.stub.Allocate(request, timeout=5).container_responses[0]

    def prefer(self, available, must=(), size=1):
        request = deviceplugin.PreferredAllocationRequest()
        request.container_requests.add(available_deviceIDs=available, must_include_deviceIDs=must,
                                       allocation_size=size)
        return list(self.stub.GetPreferredAllocation(request, timeout=5).container_responses[0].deviceIDs)


class PodResources(podresources.PodResourcesListerServicer):
    """A kubelet's PodResources socket, for who needs nothing else of a kubelet."""

    def __init__(self, directory):
        self.pod_resources = pathlib.Path(directory) / "pods.sock"
        self.pods = {}       # (namespace, pod): (resource, [device ids])
        self.questions = 0   # List calls
        self._pods_server = None

    def start(self):
        self._pods_server = serve(self.pod_resources, podresources.add_PodResourcesListerServicer_to_server, self)
        return self

    def stop(self):
        if self._pods_server:
            self._pods_server.stop(None).wait()
            self._pods_server = None

    def List(self, request, context):
        self.questions += 1
        response = podresources.ListPodResourcesResponse()
        for (namespace, name), (resource, devices) in list(self.pods.items()):
            pod = response.pod_resources.add(namespace=namespace, name=name)
            pod.containers.add(name="app").devices.add(resource_name=resource, device_ids=devices)
        return response

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


def serve(path, add, service):
    server = grpc.server(futures.ThreadPoolExecutor(8))
    add(service, server)
    server.add_insecure_port(f"unix:{path}")
    server.start()
    return server


class Kubelet(PodResources, deviceplugin.RegistrationServicer):
    """start() deletes every socket in the directory, as a kubelet does; Register dials back before it answers.

    `keyed_by` is what it knows a plugin by. "path", from 1.37 on: a Register for a path that it still has is refused, and
    then every other for that path until the kubelet restarts; several plugins of a resource may overlap, the youngest
    serves. "name", before: a Register is always taken, and when any stream of a resource ends, its newest plugin is
    disconnected.
    """

    def __init__(self, directory, keyed_by="path"):
        super().__init__(directory)
        self.keyed_by = keyed_by
        self.directory = pathlib.Path(directory) / "device-plugins"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.lock = threading.Lock()
        self.plugins = {}         # the newest by resource; one whose stream ended stays until the next
        self.connected = []       # those whose end it has not noticed yet
        self.spoilt = set()       # paths that are refused for ever
        self.registrations = []   # (resource, endpoint)
        self.late = 0             # so many ends of a stream are noticed only after the next plugin's first list
        self.unnoticed = []       # plugins with such an end
        self.refusals = 0         # so many Register calls fail first
        self.brief = 0            # so many streams are ended at their first list
        self._registration_server = None

    def start(self):
        for path in self.directory.iterdir():
            if path.is_socket():
                path.unlink(missing_ok=True)  # the plugin may be making it anew
        super().start()
        self._registration_server = serve(self.directory / "kubelet.sock",
                                          deviceplugin.add_RegistrationServicer_to_server, self)
        return self

    def stop(self):
        """As at SIGTERM: the connections end, the sockets' files stay."""
        with self.lock:
            left = {*self.plugins.values(), *self.connected}
            self.plugins, self.connected, self.unnoticed, self.spoilt = {}, [], [], set()
        for plugin in left:
            plugin.disconnect()
        super().stop()
        if self._registration_server:
            self._registration_server.stop(None).wait()
            self._registration_server = None
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
        path = self.directory / request.endpoint
        with self.lock:
            if self.keyed_by == "path" and (path in self.spoilt or any(p.path == path for p in self.connected)):
                self.spoilt.add(path)
                context.abort(grpc.StatusCode.UNKNOWN, f"device plugin already connected: {path}")
        plugin = Plugin(request.resource_name, path)
        plugin.options = plugin.stub.GetDevicePluginOptions(deviceplugin.Empty(), timeout=2)
        with self.lock:
            self.plugins[request.resource_name] = plugin
            self.connected.append(plugin)
            ended, self.unnoticed = self.unnoticed, []
        plugin.follow(self.stream_ended)
        if self.brief > 0:
            self.brief -= 1
            threading.Thread(target=self.end_at_first_list, args=(plugin,), daemon=True).start()
        if ended:
            threading.Thread(target=self.notice_late, args=(ended, plugin), daemon=True).start()
        return deviceplugin.Empty()

    @staticmethod
    def end_at_first_list(plugin):
        wait_until(lambda: plugin.lists, f"the first list from {plugin.path}")
        plugin.stream.cancel()

    def stream_ended(self, plugin):
        with self.lock:
            if self.late > 0:
                self.late -= 1
                self.unnoticed.append(plugin)
                return
        self.notice(plugin)

    def notice_late(self, ended, plugin):
        wait_until(lambda: plugin.lists or plugin.ended.is_set(), f"the first list from {plugin.path}")
        for other in ended:
            self.notice(other)

    def notice(self, plugin):
        with self.lock:
            if plugin not in self.connected:
                return   # disconnected already, or of the kubelet before a restart
            self.connected.remove(plugin)
            if self.keyed_by == "name":
                plugin = self.plugins[plugin.resource]
                self.connected = [p for p in self.connected if p is not plugin]
        plugin.disconnect()

    def sockets(self, resource="vdpa.io/nic"):
        """The resource's socket files, the fixed name of release 0.1.0 among them."""
        base = resource.replace("/", "-")
        return [p for p in self.directory.iterdir()
                if re.fullmatch(re.escape(base) + r"(-[0-9a-f]{8})?\.sock", p.name)]

    def wait_plugin(self, resource="vdpa.io/nic", timeout=5.0):
        """The resource's plugin, once its first list is there; not one whose stream has ended."""
        def living():
            plugin = self.plugins.get(resource)
            return plugin if plugin and plugin.lists and not plugin.ended.is_set() else None
        return wait_until(living, lambda: f"{resource} registered and listed; registrations: {self.registrations}",
                          timeout)
