"""Records the messages and files of the previous release's programs, for tests/system/test_neighbour.py to replay.

record.py: needs the programs of build.sh, DPDK's test driver of build/gcc and the test machine of ../vm, and writes the folder
of the release's version beside this file, once per release. The recordings are unchanged, except that "{dir}" replaces the
random folder. A pod's network namespace is /proc/self/ns/net, so that recorded messages work on any machine.
"""

import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
VERSION, COMMIT = (HERE / "previous-release").read_text().split()
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "vdpa"
OURS = HERE.parents[1] / "build/gcc"  # a driver of a device that needs no card
os.environ["VDPA_BUILD"] = str(CACHE / "releases" / VERSION)
sys.path.insert(0, str(HERE.parent / "harness"))

import grpc  # noqa: E402
import pmd  # noqa: E402
import rpc  # noqa: E402
from cni import run  # noqa: E402
from datapath import PROGRAM, WORKER_DIRS, Datapath, owner, settings  # noqa: E402
from device_plugin import DevicePlugin  # noqa: E402
from kubelet import Kubelet  # noqa: E402
from pod import Pod  # noqa: E402
from support import BUILD, wait_until  # noqa: E402

pmd.DRIVER = OURS / pmd.DRIVER.relative_to(BUILD)
OUT = HERE / VERSION
DPDK_DEVICE = "0000:65:00.2"
NETWORK = {"cniVersion": "1.0.0", "name": "fast", "type": "vdpa", "deviceID": "nic-0", "mac": "02:11:22:33:44:55",
           "vlan": 100, "mtu": 1400, "spoofchk": "on", "trust": "on", "link_state": "enable", "max_tx_rate": 500,
           "ipam": {"type": "static", "addresses": [{"address": "10.9.0.7/16", "gateway": "10.9.0.1"}],
                    "routes": [{"dst": "10.0.0.0/8", "gw": "10.9.0.1"}]}}
PLAIN = {"cniVersion": "1.1.0", "name": "plain", "type": "vdpa", "deviceID": "nic-1"}
CONFIG = {"resources": [
    {"name": "nic", "backend": "software", "socket": {"uid": 7, "gid": 8, "mode": "0660"}, "topology": False,
     "software": {"ports": 3, "queuePairs": 2, "mtu": 1500, "cores": "0"}},
    {"name": "other", "prefix": "dev.vdpa.io", "backend": "software", "software": {"ports": 1}}]}


class Proxy(grpc.GenericRpcHandler):
    """A proxy between a client and the datapath that records the bytes of every call, in order."""

    def __init__(self, path, behind):
        self.calls = []
        self._behind = rpc.channel(behind)
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), handlers=[self],
                                   options=[("grpc.http2.min_ping_interval_without_data_ms", 500)])
        self._server.add_insecure_port(f"unix:{path}")
        self._server.start()

    def service(self, details):
        method = details.method

        def one(request, context):
            call = {"method": method.rsplit("/", 1)[1], "request": request.hex()}
            self.calls.append(call)
            try:
                answer = self._behind.unary_unary(method)(request, timeout=30)
            except grpc.RpcError as error:
                call["code"], call["details"] = error.code().value[0], error.details()
                context.abort(error.code(), error.details())
            call["answer"] = answer.hex()
            return answer

        def stream(request, context):
            call = {"method": "Watch", "request": request.hex(), "answers": []}
            self.calls.append(call)
            answers = self._behind.unary_stream(method)(request)
            context.add_callback(answers.cancel)
            try:
                for answer in answers:
                    call["answers"].append(answer.hex())
                    yield answer
            except grpc.RpcError:
                return  # the client is gone
        if method.endswith("/Watch"):
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(one)

    def stop(self):
        self._server.stop(None).wait()


class Traced(Datapath):
    """A datapath under strace, which records its dialogues with the processes it supervises."""

    def __init__(self, directory, name, *arguments, **options):
        self.trace = directory / f"{name}.trace"   # and a file for each thread, complete once the thread has ended
        strace = directory / f"{name}.sh"
        strace.write_text("#!/bin/sh\nexec strace -ff -D -q -ttt -s 1000000 -yy -e trace=sendto,recvfrom "
                          f"-e signal=none -o {self.trace} {PROGRAM} \"$@\"\n")
        strace.chmod(0o755)
        super().__init__(directory, *arguments, name=name, program=strace, **options)

    def traced(self):
        """All lines in order; none while the file of an ended thread is incomplete."""
        lines = []
        for path in self.trace.parent.glob(f"{self.trace.name}.*"):
            text = path.read_text(errors="replace")
            if not text.endswith(" +++\n") and not os.path.exists(f"/proc/{path.suffix[1:]}"):
                return []
            lines += text.splitlines()
        return sorted(lines)

    def dialogues(self):
        """The messages in both directions, in order, by program and the device or resource it serves."""
        dialogues, found = {}, {}
        for line in wait_until(self.traced, f"all threads of {self.name} to be written"):
            # The processes' own ends of the connections, which have a path, are traced too if the datapath started them.
            call = re.match(r'[\d.]+ (sendto|recvfrom)\(\d+<UNIX-STREAM:\[(\d+)[^],]*\]>, "(\{.*)", \d+, .*\) = \d+$', line)
            if not call:
                continue
            text = call[3].encode().decode("unicode_escape").encode("latin-1").decode()
            for message in text.splitlines():
                dialogues.setdefault(call[2], []).append({"to" if call[1] == "sendto" else "from": json.loads(message)})
        for dialogue in dialogues.values():
            hello = next((m["from"]["ok"] for m in dialogue if "program" in m.get("from", {}).get("ok", {})), None)
            if hello:
                found.setdefault((hello["program"], hello.get("device") or hello.get("name")), []).append(dialogue)
        return found


def cni(calls, directory, command, config, container):
    """Records a call of the CNI plugin, with its output."""
    config = {**config, "datapathSocket": str(directory / "proxy.sock")}
    done = run(command, config, {"CNI_CONTAINERID": container, "CNI_PATH": "/usr/lib/cni", "CNI_ARGS":
                                 f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-{container}"})
    assert done.returncode == 0, done.stdout
    calls.append({"command": command, "container": container,
                  "config": {key: value for key, value in config.items() if key != "datapathSocket"},
                  "output": json.loads(done.stdout) if done.stdout else None})
    return calls[-1]["output"]


def write(name, value, directory):
    text = json.dumps(value, indent=1, sort_keys=True).replace(str(directory), "{dir}")
    path = OUT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def keep_files(directory, run_dir):
    """Records the files that a datapath finds at its start: owner records, and the files of attached devices."""
    for path in sorted((directory / "state").rglob("*")):
        if path.is_file():
            write(f"state/{path.relative_to(directory / 'state')}", json.loads(path.read_text()), directory)
    for path in sorted((run_dir / "devices").rglob("*")):
        if path.is_file():
            out = OUT / "run/devices" / path.relative_to(run_dir / "devices")
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, out)


def keep_dialogues(first, second, directory, *, programs):
    """Records two datapaths: `first` started the processes, `second` adopted and stopped them."""
    for program, what in {**first, **second}:
        if program in programs:
            write(f"control/{program}-{what}.json",
                  {"started": first.get((program, what), []), "adopted": second.get((program, what), [])}, directory)


def record_software(directory):
    kubelet = Kubelet(directory).start()
    (directory / "config").mkdir()
    config = directory / "config/config.yaml"
    config.write_text(json.dumps(CONFIG))
    with Traced(directory, "first") as datapath:
        datapath.wait_serving()
        proxy = Proxy(directory / "proxy.sock", datapath.run_dir / "datapath.sock")
        with DevicePlugin(directory, config, "--datapath-socket", directory / "proxy.sock"):
            wait_until(lambda: set(kubelet.wait_plugin().devices.values()) == {"Healthy"}, "healthy devices")
            wait_until(lambda: set(kubelet.wait_plugin("dev.vdpa.io/other").devices.values()) == {"Healthy"}, "all healthy")
        plugin_calls, proxy.calls = proxy.calls, []
        outputs = []
        result = cni(outputs, directory, "ADD", NETWORK, "c0")
        cni(outputs, directory, "CHECK", {**NETWORK, "prevResult": result}, "c0")
        cni(outputs, directory, "ADD", PLAIN, "c1")
        cni(outputs, directory, "STATUS", PLAIN, "c1")
        with Pod(datapath.socket(), NETWORK["mac"]):
            wait_until(lambda: datapath.attachment().state == "running", "a running pod")
        wait_until(lambda: datapath.attachment().state == "waiting", "the pod gone")
        datapath.stub.Stats(rpc.datapath.StatsRequest(), timeout=20)
        keep_files(directory, datapath.run_dir)
        write("cni.json", {"config": CONFIG, "calls": outputs, "grpc": proxy.calls}, directory)
        write("plugin.json", {"config": CONFIG, "grpc": plugin_calls}, directory)
        datapath.stop()
        first = datapath.dialogues()
        with Traced(directory, "second") as second:
            second.wait_serving().stub.SetDevices(rpc.datapath.SetDevicesRequest.FromString(
                bytes.fromhex(plugin_calls[0]["request"])), timeout=20)
            second.wait_healthy().wait_healthy("nic-1")
            wait_until(lambda: second.attachment().state == "waiting", "nic-0 adopted")
            proxy.calls, ended = [], []
            cni(ended, directory, "DEL", NETWORK, "c0")
            cni(ended, directory, "DEL", PLAIN, "c1")
            write("cni-end.json", {"calls": ended, "grpc": proxy.calls}, directory)
            second.stop()
            keep_dialogues(first, second.dialogues(), directory, programs=("vdpa-worker", "vdpa-switch"))
    proxy.stop()
    kubelet.stop()


def record_dpdk(directory):
    """A device behind DPDK's test driver, in place of a card."""
    programs = directory / "programs"
    programs.mkdir()
    wrapper = programs / "vdpa-pmd"
    wrapper.write_text(f"""#!/bin/bash
for word; do
  case $word in
    --pci=*|--driver=*|--devargs=*) ;;
    *) words+=("$word") ;;
  esac
done
exec {pmd.PROGRAM} "${{words[@]}}" --vdev=vdpa_test0,queues=2 --load={pmd.driver()}
""")
    wrapper.chmod(0o755)
    devices = rpc.datapath.Resource(
        name="vdpa.io/card", socket=rpc.datapath.SocketOptions(mode=0o666), devices=[rpc.datapath.Device(
            id=DPDK_DEVICE, dpdk=rpc.datapath.DpdkDevice(pci_address=DPDK_DEVICE, driver="ifc"))])
    options = {"worker_dirs": f"{programs}:{WORKER_DIRS}"}
    arguments = ("--sysfs", pmd.sysfs(directory, DPDK_DEVICE, "vfio-pci"))
    with Traced(directory, "first", *arguments, **options) as datapath:
        datapath.wait_serving().set_devices(devices).wait_healthy(DPDK_DEVICE)
        datapath.attach(owner("c2"), DPDK_DEVICE, settings=settings(mtu=1500))
        keep_files(directory, datapath.run_dir)
        datapath.stop()
        with Traced(directory, "second", *arguments, **options) as second:
            second.wait_serving().set_devices(devices).wait_healthy(DPDK_DEVICE)
            wait_until(lambda: second.attachment(DPDK_DEVICE).state == "waiting", "the device adopted")
            second.detach(owner("c2"))
            second.stop()
            keep_dialogues(datapath.dialogues(), second.dialogues(), directory, programs=("vdpa-worker", "vdpa-pmd"))


def record_hardware():
    """Runs in the test machine, which has real devices."""
    sys.path.insert(0, str(HERE.parent / "vm"))
    from vm import Guest
    with Guest(memory=1536) as guest:
        guest.check("modprobe -a virtio_net igb vhost_vdpa virtio_vdpa vp_vdpa vdpa_sim_net veth")
        guest.check(f"VDPA_BUILD={BUILD} XDG_CACHE_HOME={CACHE.parent} /usr/bin/python3 -B {HERE}/hardware.py /share/state",
                    300)
        for path in sorted((guest.share / "state").rglob("*")):
            if path.is_file():
                write(f"hardware/{path.relative_to(guest.share / 'state')}", json.loads(path.read_text()), "{dir}")


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    for record in record_software, record_dpdk:
        directory = pathlib.Path(tempfile.mkdtemp(prefix="vdpa-record-", dir="/tmp"))
        record(directory)
        shutil.rmtree(directory)
    record_hardware()
    (OUT / "datapath.proto").write_text(subprocess.run(
        ["git", "-C", HERE.parents[1], "show", f"{COMMIT}:common/proto/datapath.proto"], capture_output=True, text=True,
        check=True).stdout)


if __name__ == "__main__":
    main()
