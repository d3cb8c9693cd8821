"""The test cluster as the tests see it: kubectl, pods, and vdpactl on a node."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "harness"))

import rpc  # noqa: E402
import yaml  # noqa: E402
from support import wait_until  # noqa: E402

CACHE = pathlib.Path(os.environ.get("VDPA_CACHE", pathlib.Path.home() / ".cache" / "vdpa"))
DIRECTORY = CACHE / "cluster"
DIST = ROOT / "build" / "dist"     # the release files, by which the project is installed
RENDERED = {"manifests": DIST / "install.yaml", "manifests/hardware": DIST / "install-hardware.yaml"}
SCRIPTS = ROOT / "tests" / "cluster"
SAMPLE_IMAGE = "localhost/vdpa-sample:0.2.0"
NAMESPACE = "vdpa-system"
TESTPMD = ("exec dpdk-testpmd --no-pci --no-huge -m 128 --no-telemetry $(cat /run/vdpa/*/eal-args) "
           "-- --total-num-mbufs=4096 --stats-period=1 ")
PORTS = 3
CONFIG = f"""resources:
  - name: nic
    backend: software
    software: {{ports: {PORTS}, queuePairs: 1, mtu: 1500, uplink: {{netdev: uplink0}}}}
"""


class Cluster:
    def __init__(self):
        self.kubeconfig = DIRECTORY / "kubeconfig"

    def run(self, *arguments, stdin=None, check=True, timeout=180):
        done = subprocess.run([DIRECTORY / "bin" / "kubectl", f"--kubeconfig={self.kubeconfig}", *arguments],
                              input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *objects):
        self.run("apply", "-f", "-", stdin="\n---\n".join(json.dumps(o) for o in objects))

    def manifests(self, folder="manifests"):
        """The objects that `kubectl apply -k` applies."""
        return list(yaml.safe_load_all(self.run("kustomize", str(ROOT / folder))))

    def get(self, kind, name=None, namespace="default"):
        arguments = ["get", kind, "-n", namespace, "-o", "json"] + ([name] if name else ["--ignore-not-found"])
        out = self.run(*arguments, check=name is None)
        return json.loads(out) if out.strip() else None if name else {"items": []}   # kubectl prints nothing if there are none

    def allocatable(self, node, resource="vdpa.io/nic"):
        return int(self.get("node", node)["status"]["allocatable"].get(resource, "0"))

    def wait_allocatable(self, node, count, timeout=60):
        wait_until(lambda: self.allocatable(node) == count,
                   lambda: f"{count} vdpa.io/nic allocatable on {node}; it has {self.allocatable(node)}", timeout, 0.2)

    # --- pods

    def phase(self, pod):
        found = self.get("pod", pod)
        return found["status"].get("phase") if found else None

    def ready(self, pod, namespace="default"):
        found = self.get("pod", pod, namespace)
        conditions = found["status"].get("conditions", []) if found else []
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def wait_running(self, pod, timeout=90):
        def running():
            # It watches: asking again and again would take a processor from the nodes, which share this machine.
            if "condition met" in self.run("wait", f"pod/{pod}", "--for=condition=Ready", "--timeout=5s", check=False):
                return True
            assert self.phase(pod) not in ("Failed", "Succeeded"), self.describe(pod)
            return False
        wait_until(running, lambda: f"pod {pod} ready:\n{self.describe(pod)}", timeout, 0.2)

    def describe(self, pod):
        return self.run("describe", "pod", pod, check=False) + self.run("logs", pod, "--tail=20", check=False)

    def events(self, name):
        items = self.get("events")["items"]
        return "\n".join(e.get("message", "") for e in items if e["involvedObject"]["name"] == name)

    def delete(self, *pods, force=False):
        extra = ["--force", "--grace-period=0"] if force else []
        self.run("delete", "pod", *pods, "--ignore-not-found", *extra, timeout=90)

    def exec(self, pod, *command, namespace="default", container=None):
        extra = ["-c", container] if container else []
        return self.run("exec", "-n", namespace, pod, *extra, "--", *command)

    def network_status(self, pod):
        annotations = self.get("pod", pod)["metadata"].get("annotations", {})
        return json.loads(annotations.get("k8s.v1.cni.cncf.io/network-status", "[]"))

    # --- the project on a node

    def daemon(self, name, node):
        for pod in self.get("pods", namespace=NAMESPACE)["items"]:
            if pod["metadata"]["labels"].get("app.kubernetes.io/name") == name and \
                    pod["spec"].get("nodeName") == node and "deletionTimestamp" not in pod["metadata"]:
                return pod["metadata"]["name"]
        return None

    def wait_left(self, node):
        """Until no pod of the project's is on the node, not even one that is being deleted."""
        def there():
            return [pod["metadata"]["name"] for pod in self.get("pods", namespace=NAMESPACE)["items"]
                    if pod["spec"].get("nodeName") == node]
        wait_until(lambda: not there(), lambda: f"the end of {there()} on {node}", 60, 0.3)

    def log(self, node):
        return self.run("-n", NAMESPACE, "logs", self.daemon("vdpa-datapath", node), "--tail=400")

    def set_memory_limit(self, mib, *nodes):
        """Sets the memory limit of workers and switches on these nodes; None restores the manifests'. For new datapath pods."""
        arguments = [*next(o for o in self.manifests() if o["kind"] == "DaemonSet" and o["metadata"]["name"] == "vdpa-datapath")
                     ["spec"]["template"]["spec"]["containers"][0]["args"], *([f"--memory-limit={mib}"] if mib else [])]
        patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": arguments}]
        self.run("-n", NAMESPACE, "patch", "daemonset", "vdpa-datapath", "--type=json", "-p", json.dumps(patch))
        for node in nodes:
            old = self.daemon("vdpa-datapath", node)
            self.run("delete", "pod", "-n", NAMESPACE, old, timeout=60)
            wait_until(lambda: (name := self.daemon("vdpa-datapath", node)) not in (None, old) and self.ready(name, NAMESPACE),
                       lambda: self.run("-n", NAMESPACE, "get", "pods", check=False), 120, 0.2)

    def node_ready(self, node):
        conditions = self.get("node", node)["status"]["conditions"]
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def vdpactl(self, node, *arguments):
        out = self.exec(self.daemon("vdpa-datapath", node), "vdpactl", "-o", "json", *arguments, namespace=NAMESPACE)
        return json.loads(out)

    def device_of(self, pod, node="node1"):
        for attachment in self.vdpactl(node, "attachments"):
            if attachment["pod"] == pod and attachment["attached"]:
                return attachment["device"]
        return None

    def received(self, pod, node="node1"):
        device = self.device_of(pod, node)
        return next((s["rx_packets"] for s in self.vdpactl(node, "stats") if s["device"] == device), 0)

    def wait_traffic(self, pod, node="node1", packets=1000, timeout=30):
        """Waits until `pod` has received this many more packets than now."""
        before = self.received(pod, node)
        wait_until(lambda: self.received(pod, node) >= before + packets,
                   lambda: f"{packets} more packets for {pod}: {before} before, {self.received(pod, node)} now\n"
                           f"{self.vdpactl(node, 'stats')}", timeout, 0.2)


class OnNode:
    """A node as seen without the API server."""

    def __init__(self, node):
        self.node = node
        self.var = DIRECTORY / "run" / node / "var"
        first = subprocess.run(["bash", "-c", f'. {SCRIPTS}/settings.sh "$1"; node_init "$2"', "-", DIRECTORY, node],
                               check=True, capture_output=True, text=True).stdout.strip()
        self.init = first  # the pid of its first process, as the machine sees it
        self.root = pathlib.Path(f"/proc/{first}/root")
        self.datapath = rpc.datapath.DatapathStub(rpc.channel(self.root / "run/vdpa/datapath.sock"))

    def run(self, *command):
        script = f'. {SCRIPTS}/settings.sh "$1"; shift; on_node "$@"'
        subprocess.run(["bash", "-c", script, "-", DIRECTORY, self.node, *command], check=True, timeout=30)

    def kubelet(self):
        """The pid of its process in the node's namespace."""
        return (DIRECTORY / "run" / self.node / "kubelet.pid").read_text().strip()

    def held(self):
        """The devices of the kubelet's pods; None while it doesn't answer."""
        try:
            with rpc.channel(self.var / "lib/kubelet/pod-resources/kubelet.sock") as kubelet:
                answer = rpc.podresources.PodResourcesListerStub(kubelet).List(
                    rpc.podresources.ListPodResourcesRequest(), timeout=5)
        except rpc.grpc.RpcError:
            return None
        return [device for pod in answer.pod_resources for container in pod.containers
                for devices in container.devices if devices.resource_name == "vdpa.io/nic"
                for device in devices.device_ids]

    def files(self):
        """All files below the node's own directories, except those of the container runtime, the kubelet and other CNI plugins;
        as paths of the node."""
        others = ("run/containerd", "run/netns", "run/k8s.cni.cncf.io/devinfo/cni", "var/log", "var/lib/kubelet",
                  "var/lib/cni")
        found = set()
        for top in "run", "var", "opt":
            for folder, folders, names in os.walk(self.root / top):
                inside = pathlib.Path(folder).relative_to(self.root)
                folders[:] = [name for name in folders if str(inside / name) not in others]
                found.update(f"/{inside / name}" for name in [*folders, *names])
        return found | {f"/var/lib/kubelet/{path.relative_to(self.var / 'lib/kubelet')}"
                        for path in (self.var / "lib/kubelet/device-plugins").glob("*")
                        if path.name not in ("kubelet.sock", "kubelet_internal_checkpoint")}

    def list(self):
        return self.datapath.List(rpc.datapath.ListRequest(), timeout=10)

    def attached(self):
        return {attachment.owner.pod_name: attachment for attachment in self.list().attachments}

    def free_device(self):
        found = self.list()
        return ({device.id for device in found.devices} - {a.device_id for a in found.attachments}).pop()

    def packets(self):
        """The packets received on the node's devices so far."""
        return sum(d.rx_packets for d in self.datapath.Stats(rpc.datapath.StatsRequest(), timeout=10).devices)


def own_cgroups():
    """The cgroups to which vdpa-datapath of both nodes moves its processes."""
    root = pathlib.Path("/sys/fs/cgroup")
    return {path.parent for path in [*root.glob("vdpa/cgroup.procs"), *root.glob("*/vdpa/cgroup.procs")]}


def attached_processes():
    """The workers and switches of both nodes, by the host's pids; they live in their node's network namespace."""
    found = set()
    for node in "node1", "node2":
        pids = subprocess.run(["ip", "netns", "pids", f"vdpa-{node}"], capture_output=True, text=True, check=True).stdout
        for pid in pids.split():
            try:
                name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
            except FileNotFoundError:  # the process has ended meanwhile
                continue
            if name in ("vdpa-worker", "vdpa-switch", "vdpa-switch-dpd"):  # the kernel keeps 15 bytes
                found.add((pid, name))
    return found


def network(name="fast", resource="vdpa.io/nic", **config):
    annotations = {"k8s.v1.cni.cncf.io/resourceName": resource} if resource else {}
    return {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"config": json.dumps({"cniVersion": "1.0.0", "name": name, "type": "vdpa", **config})}}


def pod(name, command="exec sleep 100000", networks="fast", devices=1, node=None, user=1000, grace=1, init=None):
    limits = {"memory": "512Mi"} | ({"vdpa.io/nic": str(devices)} if devices else {})
    security = {"runAsUser": user, "runAsNonRoot": user != 0, "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]}}

    def container(container_name, shell):
        return {"name": container_name, "image": SAMPLE_IMAGE, "imagePullPolicy": "Never",
                "command": ["sh", "-c", shell], "securityContext": security, "resources": {"limits": limits}}

    spec = {"containers": [container("app", command)], "terminationGracePeriodSeconds": grace,
            "automountServiceAccountToken": False}
    if init:
        spec["initContainers"] = [container("init", init)]
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    annotations = {"k8s.v1.cni.cncf.io/networks": networks} if networks else {}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations}, "spec": spec}


def sender(name, peer_mac=None, **more):
    """Sends without end, 64-byte frames in bursts, to the broadcast address or to one MAC."""
    to = f"--eth-peer=0,{peer_mac} " if peer_mac else ""
    return pod(name, TESTPMD + to + "--forward-mode=txonly --txpkts=64 --burst=4", **more)


def receiver(name, **more):
    return pod(name, TESTPMD + "--forward-mode=rxonly", **more)


def started(cluster, name):
    status = cluster.get("pod", name)["status"]["containerStatuses"][0]
    return status["state"]["running"]["startedAt"], status["restartCount"]


def check_two_attachments(cluster, name):
    """Checks that the cluster's data, by which app-netutil finds sockets, agrees with the files that the application reads."""
    statuses = [s for s in cluster.network_status(name) if s["name"].endswith("/fast")]
    paths = {s["device-info"]["vhost-user"]["path"] for s in statuses}
    assert {s["interface"] for s in statuses} == {"net1", "net2"}
    assert len(paths) == 2
    for status in statuses:
        assert status["device-info"]["type"] == "vhost-user"
        assert status["device-info"]["vhost-user"]["mode"] == "client"
    described = {}
    decoder, rest = json.JSONDecoder(), cluster.exec(name, "sh", "-c", "cat /run/vdpa/*/device.json; true").strip()
    while rest:
        device, end = decoder.raw_decode(rest)
        described[device["interface"]] = device
        rest = rest[end:].strip()
    for status in statuses:
        device = described[status["interface"]]
        assert device["socket"] == status["device-info"]["vhost-user"]["path"]
        assert (device["mac"], device["mtu"]) == (status["mac"], status.get("mtu", device["mtu"]))
        assert [ip.split("/")[0] for ip in device["ips"]] == status.get("ips", [])


@contextlib.contextmanager
def taking_part(cluster, node):
    """Labels a node for a while and removes it again as documented."""
    cluster.run("label", "node", node, "vdpa.io/node=true")
    try:
        cluster.wait_allocatable(node, PORTS, timeout=90)
        yield
        cluster.vdpactl(node, "drain", "--wait=60")
    finally:
        cluster.run("label", "node", node, "vdpa.io/node-")
    cluster.wait_allocatable(node, 0, timeout=90)
    cluster.wait_left(node)


def wait_event(cluster, name, *words):
    wait_until(lambda: all(w in cluster.events(name) for w in words),
               lambda: f"{words} in the events of {name}:\n{cluster.events(name)}", 60, 0.3)


def release_files(directory, config=None):
    """Puts the files that the documents' commands name into a directory: a release's, with its manifests unpacked. With a
    configuration of one's own, install.yaml has it, as an operator edits that file."""
    for file in DIST.iterdir():
        (directory / file.name).symlink_to(file)
    [manifests] = DIST.glob("vdpa-*-manifests.tar.gz")
    subprocess.run(["tar", "-xzf", manifests, "-C", directory], check=True, timeout=30)
    if config:
        install = directory / "install.yaml"
        objects = list(yaml.safe_load_all(install.read_text()))
        next(o for o in objects if o["kind"] == "ConfigMap")["data"]["config.yaml"] = config
        install.unlink()
        install.write_text(yaml.safe_dump_all(objects))


def follow(commands, directory, words=None, transcript=None):
    """Runs a document's commands as an operator does, in that directory. `words` replaces the document's names by ours. Returns
    the output; with an open file `transcript`, also writes the commands and their output there."""
    for word, ours in (words or {}).items():
        assert word in commands
        commands = commands.replace(word, ours)
    environment = os.environ | {"KUBECONFIG": str(DIRECTORY / "kubeconfig"),
                                "PATH": f"{DIRECTORY / 'bin'}:{CACHE / 'helm/bin'}:{os.environ['PATH']}"}
    # With -v, the shell prints each command before it runs.
    done = subprocess.run(["bash", f"-eu{'v' if transcript else ''}c", commands], cwd=directory,
                          env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT if transcript else subprocess.PIPE,
                          text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + (done.stderr or "")
    if transcript:
        typed = set(commands.splitlines())
        transcript.writelines(f"{'$ ' if line in typed else ''}{line}\n" for line in done.stdout.splitlines())
    return done.stdout


def install(cluster, manifests, config, nodes):
    """Applies manifests as an operator does, also over an existing installation; `config` None is the tests' usual one."""
    source = ["-f", str(RENDERED[manifests])] if manifests in RENDERED else ["-k", manifests]
    expected = cluster.run("apply", *source, "-o", "name").count("daemonset.apps/")
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "vdpa-config", "namespace": NAMESPACE},
                   "data": {"config.yaml": config or CONFIG}})
    # The datapath is updated when its pod is deleted, and a mounted configuration within a minute: new pods get both at once.
    cluster.run("delete", "pods", "-n", NAMESPACE, "--all", timeout=120)
    for node in nodes:
        cluster.run("label", "--overwrite", "node", node, "vdpa.io/node=true")

    def running():
        sets = [s["status"] for s in cluster.get("daemonsets", namespace=NAMESPACE)["items"]]
        return len(sets) == expected and all(s["desiredNumberScheduled"] == s.get("numberReady", 0) == len(nodes) for s in sets)
    wait_until(running, lambda: cluster.run("-n", NAMESPACE, "get", "pods", "-o", "wide"), 600, 1)
