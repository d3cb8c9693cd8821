"""A node with the real programs, a kubelet that acts like a real one, and a supervisor that restarts killed programs."""

import errno
import itertools
import json
import os
import pathlib
import re
import subprocess

import grpc
import processes
from datapath import Datapath, program_of, worker_dirs_of
from device_plugin import DevicePlugin
from kubelet import Kubelet
from processes import kill, listener
from support import BUILD, wait_until
from switch import Control

RELEASE_AFTER = 1  # seconds: short, since rounds wait for reconciliation


class Node:
    """The supervised programs are `plugin` and `datapath`; the datapath supervises the others."""

    def __init__(self, directory, config, log_level="debug"):
        self.directory = pathlib.Path(directory)
        self.build = BUILD  # folder of the programs that the next start uses
        self.log_level = log_level
        self.config_path = self.directory / "config.yaml"
        self.devinfo = self.directory / "devinfo"
        self.ipam = self.directory / "ipam"
        self.kubelet = Kubelet(self.directory)
        self.cgroup = hierarchy() / self.directory.name  # stands for the top of the hierarchy
        self.configure(config)

    def __enter__(self):
        self.cgroup.mkdir()
        self.kubelet.start()
        self.start_datapath()
        self.start_plugin()
        return self

    def __exit__(self, *_):
        for program in (self.plugin, self.datapath):
            if program.running():
                program.kill()
        self.kubelet.stop()
        for pids in self.processes().values():
            for pid in pids:
                kill(pid)
        for folder in reversed(self.cgroups()):
            wait_until(lambda: removed(folder), f"the processes in {folder} to end")

    def configure(self, config):
        """Replaces the file, as a ConfigMap volume is updated."""
        self.config = config
        new = self.config_path.with_suffix(".new")
        new.write_text(json.dumps(config))
        new.rename(self.config_path)

    def start_datapath(self):
        self.datapath = Datapath(self.directory, "--release-after", RELEASE_AFTER, "--cgroup-root", self.cgroup,
                                 log_level=self.log_level, program=program_of(self.build),
                                 worker_dirs=worker_dirs_of(self.build))

    def start_plugin(self):
        self.plugin = DevicePlugin(self.directory, self.config_path, log_level=self.log_level,
                                   program=self.build / "deviceplugin/vdpa-device-plugin")

    def restart(self, name):
        getattr(self, f"start_{name}")()

    # --- for a runtime

    def call(self, command, container, netns, device, pod):
        """Starts the CNI plugin as Multus does; answer() waits for it."""
        environment = {"PATH": os.environ["PATH"], "RUNTIME_DIRECTORY": str(self.directory), "CNI_COMMAND": command,
                       "CNI_CONTAINERID": container, "CNI_NETNS": netns, "CNI_IFNAME": "net1",
                       "CNI_PATH": "/usr/lib/cni", "VDPA_CNI_ROOTS": str(self.directory),
                       "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=soak;K8S_POD_NAME={pod};K8S_POD_UID={pod}"}
        config = {"cniVersion": "1.0.0", "name": "fast", "type": "vdpa", "deviceID": device,
                  "datapathSocket": str(self.directory / "run/datapath.sock"),
                  "logLevel": self.log_level,
                  "ipam": {"type": "host-local", "dataDir": str(self.ipam), "ranges": [[{"subnet": "10.9.0.0/16"}]]}}
        return Call(self.build / "cni/vdpa", json.dumps(config), environment, self.directory / "cni.log")

    # --- observations from outside

    def devices(self):
        """The devices that the configuration offers: {resource: {device: health}}."""
        return {f"vdpa.io/{resource['name']}":
                {f"{resource['name']}-{n}": "Healthy" for n in range(resource["software"]["ports"])}
                for resource in self.config["resources"]}

    def processes(self):
        """The pids of all processes of this node, by program and its device or resource; zombies are "zombie of ..."."""
        found, zombies = {}, {}
        ours = (self.plugin.pid, self.datapath.pid)

        def sort(pid):
            if processes.environment_has(pid, "RUNTIME_DIRECTORY", self.directory):
                if pid != os.getpid():
                    found.setdefault(title(pid), []).append(pid)
            elif processes.is_zombie(pid):
                zombies[pid] = processes.parent(pid)
        list(processes.find(sort))
        names = {pid: name for name, pids in found.items() for pid in pids}
        for pid, owner in zombies.items():
            if owner == os.getpid() and pid not in ours:
                os.waitpid(pid, os.WNOHANG)  # a killed program's orphan, which we reap in place of init
            elif owner in names:
                found.setdefault(f"zombie of {names[owner]}", []).append(pid)
        return found

    def worker_pid(self, device):
        return self._child(f"workers/{device}.sock")

    def switch_pid(self, resource="vdpa.io-nic"):
        return self._child(f"switches/{resource}/control.sock")

    def _child(self, control):
        """Until a process listens itself, the datapath, which hands the socket down to it, is the one that does."""
        pid = listener(self.directory / "run" / control)
        return None if pid == self.datapath.process.pid else pid

    def ports(self, resource):
        """The ports of a resource's switch."""
        control = Control(self.directory / f"run/switches/{resource.replace('/', '-')}/control.sock")
        try:
            return {port["id"] for port in control.call("ports")["ports"]}
        finally:
            control.close()

    def files(self):
        """Every file except logs, with its kind. A number replaces the random part of a plugin's socket."""
        kinds = {}
        for folder, folders, files in os.walk(self.directory):
            for name in folders + files:
                path = pathlib.Path(folder, name)
                if path.suffix != ".log":
                    shown = str(path.relative_to(self.directory))
                    if random := re.fullmatch(r"(device-plugins/.*-)[0-9a-f]{8}(\.sock)", shown):
                        shown = next(name for n in itertools.count(1)
                                     if (name := f"{random[1]}{n}{random[2]}") not in kinds)
                    kinds[shown] = (
                        "socket" if path.is_socket() else "folder" if path.is_dir() else "file")
        return kinds

    def cgroups(self):
        """All folders, parents first."""
        return [self.cgroup, *(path for path in sorted(self.cgroup.rglob("*")) if path.is_dir())]


class Call:
    """One run of the CNI plugin."""

    def __init__(self, program, config, environment, log):
        with open(log, "ab") as errors:
            self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=errors, env=environment)
        self.config = config.encode()

    def answer(self, timeout=60):
        """(whether it succeeded, its output)."""
        output, _ = self.process.communicate(self.config, timeout)
        if self.process.returncode < 0:
            return False, f"killed by signal {-self.process.returncode}"
        if self.process.returncode:
            return False, output.decode() or f"exited with {self.process.returncode} and no answer"
        return True, json.loads(output) if output else None


def unreachable(error):
    return isinstance(error, grpc.RpcError) and error.code() in (
        grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)


def unhealthy(error):
    return error.code() == grpc.StatusCode.FAILED_PRECONDITION and "is unhealthy: " in error.details()


def hierarchy():
    """One of the host's cgroup file systems."""
    v1 = pathlib.Path("/sys/fs/cgroup/pids")
    return v1 if v1.is_dir() else v1.parent


def removed(cgroup):
    try:
        cgroup.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def title(pid):
    options = processes.options(pid)
    return " ".join(filter(None, [os.path.basename(processes.arguments(pid)[0]), options.get("device") or options.get("name")]))
