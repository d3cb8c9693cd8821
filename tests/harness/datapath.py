"""vdpa-datapath as a process, with its environment (network namespaces, a kubelet's PodResources) and its calls."""

import contextlib
import itertools
import json
import os
import subprocess

import grpc

import processes
import rpc
from support import BUILD, Program, wait_until
from switch import Control


def program_of(build):
    return build / "deviceplugin/datapath/vdpa-datapath"


def worker_dirs_of(build):
    return ":".join(str(build / "deviceplugin/datapath" / folder) for folder in ("worker", "switch", "pmd"))


PROGRAM, WORKER_DIRS = program_of(BUILD), worker_dirs_of(BUILD)
NEXT = BUILD / "tests/next"  # the programs of another version
_numbers = itertools.count()


def broken_switches(directory):
    """Worker directories whose vdpa-switch ends with status 3 at once."""
    programs = directory / "programs"
    programs.mkdir()
    (programs / "vdpa-switch").write_text("#!/bin/sh\nexit 3\n")
    (programs / "vdpa-switch").chmod(0o755)
    return f"{programs}:{WORKER_DIRS}"


class Datapath(Program):
    """A running vdpa-datapath below `directory`. Its workers and switches outlive it and end with the context."""

    def __init__(self, directory, *arguments, name="datapath", worker_dirs=WORKER_DIRS, log_level="debug",
                 run_dir=None, program=PROGRAM, wrapper=()):
        self.directory = directory
        self.run_dir = run_dir or directory / "run"
        self.state_dir = directory / "state"
        super().__init__(name, [*wrapper, program, "--run-dir", self.run_dir, "--state-dir", self.state_dir,
                                "--worker-dir", worker_dirs, "--pod-resources", directory / "pods.sock",
                                "--log-level", log_level, *arguments], directory)
        self._channel = None

    @property
    def stub(self):
        if self._channel is None:
            self._channel = rpc.channel(self.run_dir / "datapath.sock")
        return rpc.datapath.DatapathStub(self._channel)

    def wait_serving(self):
        self.wait_log(f"serving on {self.run_dir}/datapath.sock")
        return self

    def set_devices(self, *resources):
        self.stub.SetDevices(rpc.datapath.SetDevicesRequest(resources=resources), timeout=20)
        return self

    def offer(self, count=4, **software):
        return self.set_devices(resource(count=count, **software))

    def attach(self, owner, device="nic-0", settings=None, ips=(), timeout=30):
        return self.stub.Attach(rpc.datapath.AttachRequest(
            owner=owner, device_id=device, settings=settings, ips=ips), timeout=timeout).attachment

    def detach(self, owner, timeout=30):
        return self.stub.Detach(rpc.datapath.DetachRequest(
            container_id=owner.container_id, interface=owner.interface), timeout=timeout).detached

    def check(self, owner, device="nic-0", settings=None, ips=()):
        return list(self.stub.Check(rpc.datapath.CheckRequest(
            owner=owner, device_id=device, settings=settings, ips=ips), timeout=20).differences)

    def list(self):
        return self.stub.List(rpc.datapath.ListRequest(), timeout=20)

    def device(self, device="nic-0"):
        return next(state for state in self.list().devices if state.id == device)

    def attachment(self, device="nic-0"):
        return next((a for a in self.list().attachments if a.device_id == device), None)

    def wait_healthy(self, device="nic-0"):
        wait_until(lambda: self.device(device).healthy, lambda: f"{device} healthy: {self.device(device)}", 20)
        return self

    def path(self, device="nic-0", file=""):
        return self.run_dir / "devices" / device / file

    def socket(self, device="nic-0"):
        return self.path(device, "vhost.sock")

    def switch_control(self, resource="nic"):
        """Opens the control channel of the resource's switch."""
        return Control(self.run_dir / f"switches/vdpa.io-{resource}/control.sock")

    def record(self, device="nic-0"):
        return self.state_dir / "owners" / f"{device}.json"

    def processes(self):
        """The pids of this directory's workers and switches, by device or resource."""
        return dict(self.served())

    def served(self):
        """The pids of this directory's vdpa-pmds, by their workers' devices."""
        def ours(pid):
            return processes.options(pid).get("control", "").startswith(f"{self.run_dir}/") and not processes.is_zombie(pid)
        for pid in processes.find(ours):
            with contextlib.suppress(OSError):  # the process just ended
                options = processes.options(pid)
                if options:
                    yield options.get("device") or options["name"], pid

    def worker_pid(self, device="nic-0"):
        return self.processes()[device]

    def switch_pid(self, name="vdpa.io-nic"):
        return self.processes()[name]

    def restarted(self, *arguments, **options):
        """Starts another instance over the same directories, after this one was stopped or killed."""
        if self.running():
            self.stop()
        return Datapath(self.directory, *arguments, name=f"datapath{next(_numbers)}", **options).wait_serving()

    def updated(self, *arguments, worker_dirs=NEXT):
        """Replaces this instance by one of the next version."""
        return self.restarted(*arguments, program=NEXT / "vdpa-datapath", worker_dirs=worker_dirs)

    def __exit__(self, *_):
        super().__exit__()
        for _, pid in self.served():
            processes.kill(pid)


def resource(name="vdpa.io/nic", count=4, ids=None, queue_pairs=1, mtu=1500, socket=None, **software):
    short = name.split("/")[-1]
    return rpc.datapath.Resource(
        name=name, socket=socket or rpc.datapath.SocketOptions(mode=0o666),
        devices=[rpc.datapath.Device(id=i) for i in (ids or [f"{short}-{n}" for n in range(count)])],
        software=rpc.datapath.SoftwareSwitch(queue_pairs=queue_pairs, mtu=mtu, **software))


def owner(container="c0", interface="net1", netns="/proc/self/ns/net", pod="", namespace="default", uid=""):
    return rpc.datapath.Owner(container_id=container, interface=interface, netns=str(netns), network="fast",
                              pod_namespace=namespace if pod else "", pod_name=pod, pod_uid=uid)


def settings(**values):
    return rpc.datapath.Settings(**values)


@contextlib.contextmanager
def network_namespace():
    """The path of a real network namespace, which may be deleted meanwhile."""
    name = f"vdpa-test-{os.getpid()}-{next(_numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield f"/var/run/netns/{name}"
    finally:
        delete_namespace(f"/var/run/netns/{name}")


def delete_namespace(path):
    subprocess.run(["ip", "netns", "del", os.path.basename(path)], stderr=subprocess.DEVNULL, check=False)


@contextlib.contextmanager
def refused(code, *words):
    """Expects the call inside to fail with this status code and a message that contains all the words."""
    try:
        yield
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()}: {error.details()}"
        for word in words:
            assert word in error.details(), error.details()
        return
    raise AssertionError(f"not refused; expected {code} with {words}")


def read_json(path):
    return json.loads(path.read_text())
