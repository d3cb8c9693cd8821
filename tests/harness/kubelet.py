"""A kubelet as device plugins see it: a real gRPC server in the real directory layout, which behaves like the real one.

It follows pkg/kubelet/cm/devicemanager of Kubernetes 1.34 and, for the registration, 1.37. Pods have one container.
"""

import contextlib
import json
import pathlib
import random
import re
import threading
import time
from concurrent import futures

import grpc

from rpc import channel, deviceplugin, podresources
from support import wait_until


class Plugin:
    """The kubelet's state for one registered resource."""

    def __init__(self, resource, path):
        self.resource = resource
        self.path = path
        self.channel = channel(path)
        self.stub = deviceplugin.DevicePluginStub(self.channel)
        self.options = None
        self.lists = []       # every message of the stream, as {device: health}
        self.repeated = []    # devices that occur more than once in a message
        self.ended = threading.Event()
        self.ended_at = None
        self.stream = None

    @property
    def devices(self):
        return self.lists[-1] if self.lists else {}

    def follow(self, listed, ended):
        """Calls `listed` after each list and `ended` when the plugin's stream has ended, on a thread of its own."""
        self.stream = self.stub.ListAndWatch(deviceplugin.Empty())

        def read():
            try:
                for message in self.stream:
                    ids = [d.ID for d in message.devices]
                    self.repeated += [i for i in set(ids) if ids.count(i) > 1]
                    self.lists.append({d.ID: d.health for d in message.devices})
                    listed()
            except grpc.RpcError:
                pass
            self.ended_at = time.monotonic()
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
    """Only a kubelet's PodResources socket, for tests that need no other part."""

    def __init__(self, directory):
        self.pod_resources = pathlib.Path(directory) / "pods.sock"
        self.pods = {}       # (namespace, pod): (resource, [device ids])
        self.questions = 0   # number of List calls
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


class Rejected(Exception):
    """A pod's UnexpectedAdmissionError, with the kubelet's text. `cause` is the plugin's error, if any."""

    def __init__(self, why, cause=None):
        super().__init__(f"Allocate failed due to {why}, which is unexpected")
        self.cause = cause


class Kubelet(PodResources, deviceplugin.RegistrationServicer):
    """start() deletes every socket in the directory, as a kubelet does; Register dials back before it answers.

    `keyed_by` is the key by which it tracks plugins. "path", from 1.37 on: a Register for a path that it still has is refused,
    and so is every later one for that path until the kubelet restarts; several plugins of a resource may overlap, and the
    newest serves. "name", before that: a Register always succeeds, and when any stream of a resource ends, the resource's
    newest plugin is disconnected. "newest", in still older kubelets: a Register ends the old plugin's stream.

    The allocations are in its checkpoint, a file in the plugins' directory, which it writes after an admission and after each
    list of a plugin, and reads when it starts. The devices of a pod that has ended stay there until the kubelet both knows all
    pods (`knows_pods`, False for a while after a start) and is asked for them or admits another pod.
    """

    def __init__(self, directory, keyed_by="path", grace=300.0):
        super().__init__(directory)
        self.keyed_by = keyed_by
        self.grace = grace        # seconds until a resource without a plugin is forgotten
        self.directory = pathlib.Path(directory) / "device-plugins"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.checkpoint = self.directory / "kubelet_internal_checkpoint"
        self.lock = threading.Lock()
        self.admission = threading.Lock()
        self.writing = threading.Lock()
        self.plugins = {}         # the newest plugin by resource; stays after its stream has ended, until the next
        self.connected = []       # plugins whose end it has not noticed yet
        self.spoilt = set()       # paths that are refused until a restart
        self.registrations = []   # (resource, endpoint)
        self.late = 0             # this many ends of streams are noticed only after the next plugin's first list
        self.unnoticed = []       # plugins whose stream ended in this way
        self.refusals = 0         # this many Register calls fail first
        self.brief = 0            # this many streams are ended at their first list
        self.known = {}           # resource: since when it has no plugin; only resources in the checkpoint
        self.ended_pods = set()   # (namespace, pod) that the API server has deleted
        self.knows_pods = True
        self.life = 0             # set by stop(), which also ends pending calls
        self._registration_server = None

    def start(self, knows_pods=True):
        for path in self.directory.iterdir():
            if path.is_socket():
                path.unlink(missing_ok=True)  # the plugin may be recreating it
        if self.checkpoint.exists():
            with self.writing:
                saved = json.loads(self.checkpoint.read_text())
            self.pods = {(namespace, pod): (resource, devices) for namespace, pod, resource, devices in saved["pods"]}
            self.known = dict.fromkeys(saved["resources"], time.monotonic())
        self.knows_pods = knows_pods
        super().start()
        self._registration_server = serve(self.directory / "kubelet.sock",
                                          deviceplugin.add_RegistrationServicer_to_server, self)
        return self

    def stop(self):
        """Stops as at SIGTERM: closes the connections, keeps the sockets' files. Stops the servers first: a plugin that
        registers with a stopping kubelet would be known to the next one."""
        super().stop()
        if self._registration_server:
            self._registration_server.stop(None).wait()
            self._registration_server = None
        with self.lock:
            self.life += 1
            left = {*self.plugins.values(), *self.connected}
            self.plugins, self.connected, self.unnoticed, self.spoilt = {}, [], [], set()
        for plugin in left:
            plugin.disconnect()
        (self.directory / "kubelet.sock").touch()

    def restart(self, knows_pods=True):
        self.stop()
        (self.directory / "kubelet.sock").unlink(missing_ok=True)
        return self.start(knows_pods)

    # --- pods

    def admit(self, pod, resource="vdpa.io/nic", count=1, namespace="default", only=None):
        """Admits a pod and returns its devices from the plugin's Allocate; or raises Rejected. `only` limits the choice."""
        with self.admission:
            self._free_ended()
            given = self.pods.get((namespace, pod), (resource, []))[1]
            healthy = self.healthy(resource)
            if healthy is None:
                raise Rejected(f"cannot allocate unregistered device {resource}")
            if not healthy:
                raise Rejected(f"no healthy devices present; cannot allocate unhealthy devices {resource}")
            if not healthy.issuperset(given):
                raise Rejected(f"previously allocated devices are no longer healthy; cannot allocate unhealthy devices "
                               f"{resource}")
            if given:
                return given
            free = healthy - self._in_use(resource)
            if only is not None:
                free &= set(only)
            if len(free) < count:
                raise Rejected(f"requested number of devices unavailable for {resource}. Requested: {count}, "
                               f"Available: {len(free)}")
            devices = self._allocate(self.plugins[resource], free, count)
            self.pods[namespace, pod] = resource, devices
            self._write_checkpoint()
            return devices

    @staticmethod
    def _allocate(plugin, free, count):
        free = random.sample(sorted(free), len(free))   # in random order, as a Go map's
        try:
            if plugin.options.get_preferred_allocation_available:
                devices = plugin.prefer(free, size=count)
                assert len(devices) == count and set(devices) <= set(free), f"preferred {devices} of {free}"
            else:
                devices = free[:count]
            plugin.allocate(*devices)
            return devices
        except grpc.RpcError as error:
            raise Rejected(f"rpc error: code = {error.code()} desc = {error.details()}", error) from error
        except ValueError as error:   # the channel was closed meanwhile
            raise Rejected(str(error)) from error

    def end(self, pod, namespace="default"):
        """Ends a pod: the API server has deleted it, and its containers have stopped."""
        self.ended_pods.add((namespace, pod))

    def _free_ended(self):
        if self.knows_pods:
            for pod in list(self.ended_pods):
                self.ended_pods.discard(pod)
                self.pods.pop(pod, None)

    def _in_use(self, resource):
        return {device for name, devices in list(self.pods.values()) if name == resource for device in devices}

    def healthy(self, resource="vdpa.io/nic"):
        """The devices that may be given to pods; None for a resource that is unknown or forgotten."""
        plugin = self.plugins.get(resource)
        if plugin and plugin.lists and not plugin.ended.is_set():
            return {device for device, health in plugin.devices.items() if health == "Healthy"}
        since = plugin.ended_at if plugin and plugin.ended.is_set() else self.known.get(resource)
        return set() if since is not None and time.monotonic() - since < self.grace else None

    def _write_checkpoint(self):
        """Writes the checkpoint in place, which works on a full disk as long as it doesn't grow. On failure a kubelet
        continues."""
        saved = {"pods": [(*pod, *given) for pod, given in list(self.pods.items())],
                 "resources": sorted({*self.known, *self.plugins})}
        with self.writing, contextlib.suppress(OSError):
            self.checkpoint.write_text(json.dumps(saved))

    def _listed(self, plugin):
        if plugin in self.connected:   # not if the kubelet was restarted meanwhile
            self._write_checkpoint()

    def List(self, request, context):
        if not self.knows_pods:
            self.questions += 1
            return podresources.ListPodResourcesResponse()
        self._free_ended()
        return super().List(request, context)

    # --- plugins

    def Register(self, request, context):
        life = self.life
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
            if self.life != life:
                plugin.disconnect()
                context.abort(grpc.StatusCode.UNAVAILABLE, "the kubelet ends")
            old = self.plugins.get(request.resource_name)
            self.plugins[request.resource_name] = plugin
            self.connected.append(plugin)
            ended, self.unnoticed = self.unnoticed, []
        if self.keyed_by == "newest" and old:
            old.disconnect()
        plugin.follow(lambda: self._listed(plugin), self.stream_ended)
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
                return   # already disconnected, or of the kubelet before a restart
            self.connected.remove(plugin)
            if self.keyed_by == "name":
                plugin = self.plugins[plugin.resource]
                self.connected = [p for p in self.connected if p is not plugin]
        plugin.disconnect()

    def sockets(self, resource="vdpa.io/nic"):
        """The resource's socket files, including release 0.1.0's fixed name."""
        base = resource.replace("/", "-")
        return [p for p in self.directory.iterdir()
                if re.fullmatch(re.escape(base) + r"(-[0-9a-f]{8})?\.sock", p.name)]

    def wait_plugin(self, resource="vdpa.io/nic", timeout=5.0):
        """Waits for the resource's plugin and its first list; a plugin whose stream has ended does not count."""
        def living():
            plugin = self.plugins.get(resource)
            return plugin if plugin and plugin.lists and not plugin.ended.is_set() else None
        return wait_until(living, lambda: f"{resource} registered and listed; registrations: {self.registrations}",
                          timeout)
