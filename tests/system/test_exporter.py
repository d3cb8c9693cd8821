"""vdpa-exporter with real daemons: what it serves, that the document lists just that, and clients and daemons that hang."""

import contextlib
import os
import shutil
import signal
import time

import grpc
import pytest

import rpc
from cni import BAD_CONFIG, TRY_AGAIN, Node, run
from datapath import WORKER_DIRS, Datapath, owner, settings
from device_plugin import DevicePlugin, software, write_config
from exporter import Exporter, cgroup_tree, names_in, scrape, tables
from kubelet import Kubelet
from pmd import programs, sysfs
from pod import BROADCAST, Pod, mac
from support import own_address, suspend, wait_until

HALF = b"GET /metrics HTTP/1.1\r\nHost: x"
WHOLE = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
PF, VF = "0000:65:00.0", "0000:65:00.2"
# By the files of the VF's representor, which transmits what the VF receives.
COUNTED = {"tx_packets": 11, "tx_bytes": 12, "rx_packets": 13, "rx_bytes": 14, "tx_dropped": 15, "rx_dropped": 16}


class WholeNode:
    """A whole node: a kubelet, both daemons and the exporter."""

    def __init__(self, directory, stack, devices=4, port=9464):
        self.directory, self.stack = directory, stack
        self.addresses = {"plugin": (own_address(), port), "datapath": (own_address(), port + 1)}
        self.config = write_config(directory, *software(nic=devices)["resources"])
        self.cgroup = stack.enter_context(cgroup_tree(directory))
        self.kubelet = Kubelet(directory)
        self.kubelet.start()
        stack.callback(self.kubelet.stop)
        self.datapath = stack.enter_context(Datapath(directory, *self.datapath_options())).wait_serving()
        self.plugin = stack.enter_context(DevicePlugin(directory, self.config, self.port_option("plugin")))
        self.kubelet.wait_plugin()
        wait_until(lambda: len(self.kubelet.healthy() or ()) == devices, self.kubelet.healthy)
        self.exporter = stack.enter_context(Exporter(directory, port + 2)).wait_serving()
        self.cni = Node(self.datapath)

    def port_option(self, daemon):
        return "--metrics-address=%s:%d" % self.addresses[daemon]

    def datapath_options(self):
        return self.port_option("datapath"), f"--cgroup-root={self.cgroup}", "--memory-limit=64"

    def restart_datapath(self):
        self.datapath = self.stack.enter_context(self.datapath.restarted(*self.datapath_options()))


@pytest.fixture
def node(directory):
    with contextlib.ExitStack() as stack:
        yield WholeNode(directory, stack)


@pytest.fixture(scope="module")
def quiet_node(module_directory):
    """For tests that leave its daemons alone."""
    with contextlib.ExitStack() as stack:
        yield WholeNode(module_directory, stack, port=9564)


def add_pf(tree):
    """Links the VF and a PF in switchdev mode. Its netdev is this machine's lo, of which the kernel counts no VFs."""
    pf, vf = (tree / "bus/pci/devices" / address for address in (PF, VF))
    for port, number in (("p0", 1), ("pf0vf3", 99)):
        netdev = pf / "net" / port
        (netdev / "statistics").mkdir(parents=True)
        (netdev / "phys_port_name").write_text(f"{port}\n")
        (netdev / "ifindex").write_text(f"{number}\n")
        for name, value in COUNTED.items():
            (netdev / "statistics" / name).write_text(f"{value if port != 'p0' else 1000}\n")
    (pf / "virtfn3").symlink_to(f"../{VF}")
    (vf / "physfn").symlink_to(f"../{PF}")
    return tree


@pytest.fixture
def queues(directory):
    """What is served of a VF whose driver counts per virtqueue, and whose PF counts its packets."""
    with Datapath(directory, "--sysfs", add_pf(sysfs(directory, VF, "vfio-pci")),
                  worker_dirs=f"{programs(directory)}:{WORKER_DIRS}") as datapath:
        datapath.wait_serving().set_devices(rpc.datapath.Resource(
            name="vdpa.io/nic", socket=rpc.datapath.SocketOptions(mode=0o666), devices=[rpc.datapath.Device(
                id=VF, dpdk=rpc.datapath.DpdkDevice(pci_address=VF, driver="ifc"))]))
        datapath.wait_healthy(VF)
        datapath.attach(owner(), VF)
        with Exporter(directory, 9366, name="exporter-of-queues") as exporter:
            yield exporter.wait_serving().wait_up("datapath")


def states(metrics, resource="vdpa.io/nic"):
    return {labels["state"]: value for labels, value in metrics.all("vdpa_resource_devices", resource=resource) if value}


# --- the list

def test_the_document_lists_what_is_served_and_nothing_else(queues, directory):
    """A kernel or DPDK device is the only one with counters of its queues, so two nodes show everything together."""
    shutil.rmtree(directory / "run")
    shutil.rmtree(directory / "state")
    with contextlib.ExitStack() as stack:
        node = WholeNode(directory, stack)
        node.cni.add()
        node.kubelet.admit("pod")
        metrics = node.exporter.scrape()
        of_daemons = {letter: scrape(node.addresses[daemon]) for letter, daemon in (("P", "plugin"), ("D", "datapath"))}
    current, deprecated = tables()
    served = metrics.labels()
    for name, labels in queues.labels().items():
        served.setdefault(name, set()).update(labels)
    assert served == {names_in(row["name"])[0]: {tuple(sorted(names_in(row["labels"])))} for row in current}
    assert queues.types | metrics.types == {names_in(row["name"])[0]: row["type"] for row in current}
    for letter, found in of_daemons.items():
        ours = {name: labels for name, labels in found.labels().items() if name.startswith("vdpa_")}   # not the library's
        assert ours == {names_in(row["name"])[0]: {tuple(sorted(names_in(row["labels"])))}
                                  for row in deprecated if row["served by"] == letter}
        for name in ours:
            text = found.helps[name]
            assert text.startswith("Deprecated, use vdpa-exporter's vdpa_") or "count(" in text, name
    assert not {names_in(row["name"])[0] for row in deprecated} & set(served), "served twice"


def test_what_needs_a_daemon_is_absent_without_it_and_the_rest_is_not(node):
    node.cni.add()
    needs = {names_in(row["name"])[0]: row["needs"] for row in tables()[0]}
    everything = set(node.exporter.scrape().types)
    node.datapath.kill()
    metrics = node.exporter.wait(lambda found: found.value("vdpa_up", daemon="datapath") == 0, "the datapath is missed")
    assert metrics.value("vdpa_up", daemon="device-plugin") == 1
    assert set(metrics.types) == {name for name in everything if "D" not in needs[name].replace("P, D, each", "")}
    node.restart_datapath()
    node.exporter.wait_up("datapath")
    node.plugin.kill()
    metrics = node.exporter.wait(lambda found: found.value("vdpa_up", daemon="device-plugin") == 0, "the plugin is missed")
    assert set(metrics.types) == {name for name in everything if "P" not in needs[name].replace("P, D, each", "")}
    assert metrics.value("vdpa_attachment_info", device="nic-0") == 1


# --- values

def test_a_device_its_attachment_and_its_states(node):
    node.cni.add(vlan=7, arguments="K8S_POD_NAMESPACE=team;K8S_POD_NAME=app;K8S_POD_UID=u")
    node.kubelet.admit("waiting", only=["nic-1"])
    node.exporter.wait(lambda metrics: states(metrics) == {"attached": 1, "held": 1, "free": 2}, "one attached and one held")
    metrics = node.exporter.scrape()
    [(labels, _)] = metrics.all("vdpa_attachment_info")
    assert labels == {"device": "nic-0", "resource": "vdpa.io/nic", "namespace": "team", "pod": "app", "network": "fast",
                      "interface": "net1", "vlan": "7", "state": "waiting"}
    [(labels, _)] = metrics.all("vdpa_device_info", device="nic-2")
    assert labels == {"device": "nic-2", "resource": "vdpa.io/nic", "backend": "software", "attach": "vhost-user",
                      "pci_address": "", "pf": "", "numa_node": ""}
    assert abs(metrics.value("vdpa_attachment_created_timestamp_seconds", device="nic-0") - time.time()) < 60
    assert [value for _, value in metrics.all("vdpa_device_healthy")] == [1] * 4
    assert metrics.value("vdpa_resource_registered", resource="vdpa.io/nic") == 1
    assert metrics.value("vdpa_kubelet_registrations_total", resource="vdpa.io/nic") == 1
    assert metrics.value("vdpa_kubelet_allocations_total", result="allowed") == 1
    assert {tuple(labels.values()) for labels, _ in metrics.all("vdpa_build_info")} == {
        (program, metrics.all("vdpa_build_info", program="vdpa-exporter")[0][0]["version"])
        for program in ("vdpa-exporter", "vdpa-device-plugin", "vdpa-datapath")}

    node.datapath.kill()
    node.datapath.record("nic-0").write_text("{")
    node.restart_datapath()
    node.exporter.wait(lambda metrics: states(metrics) == {"withheld": 1, "held": 1, "free": 2}, "one withheld")
    node.cni.add(device="nic-2", container="c2")
    node.exporter.wait(lambda metrics: states(metrics) == {"withheld": 1, "held": 1, "attached": 1, "free": 1}, "and attached")
    node.cni.delete(container="c2")


def test_packets_drops_and_the_pollers(node):
    node.datapath.attach(owner(), settings=settings(mac=mac(1)))
    control = node.datapath.switch_control()
    with Pod(node.datapath.socket(), mac(1)) as pod:
        control.wait_connected("nic-0")
        pod.push(b"x")
        pod.send_to(BROADCAST, size=100)
        wait_until(lambda: control.stats("nic-0")["tx_packets"] == 2, lambda: control.stats("nic-0"))
        metrics = node.exporter.wait(lambda found: found.all("vdpa_attachment_info", state="running"), "the pod runs")
    device = {"device": "nic-0", "resource": "vdpa.io/nic"}
    assert [metrics.value(f"vdpa_device_{what}_total", **device) for what in (
        "transmit_packets", "transmit_bytes", "receive_packets", "receive_bytes")] == [2, 101, 0, 0]
    assert metrics.value("vdpa_device_drops_total", reason="runt", **device) == 1
    assert 0 < metrics.value("vdpa_poller_busy_seconds_total", resource="vdpa.io/nic", poller="0") < 60
    assert metrics.value("vdpa_attachment_info", **device, state="running") == 1


def test_counters_of_a_dpdk_device_s_queues(queues):
    assert {labels["queue"] for labels, _ in queues.all("vdpa_device_queue_events_total")} == {"0", "1", "2", "3"}
    assert queues.value("vdpa_device_queue_events_total", device=VF, resource="vdpa.io/nic", queue="0", event="packets") == 0
    assert queues.value("vdpa_engine_restarts_total", program="vdpa-pmd", device=VF, resource="vdpa.io/nic") == 0


def test_counters_of_a_vf(queues, directory):
    device = {"device": VF, "resource": "vdpa.io/nic"}
    assert {what: queues.value(f"vdpa_device_{what}_total", **device) for what in (
        "receive_packets", "receive_bytes", "transmit_packets", "transmit_bytes")} == {
        "receive_packets": 11, "receive_bytes": 12, "transmit_packets": 13, "transmit_bytes": 14}
    assert {labels["reason"]: value for labels, value in queues.all("vdpa_device_drops_total", **device)} == {
        "receive": 15, "transmit": 16}
    # The kernel has answered the question for the VFs of the PF's netdev.
    assert "for the metrics: " not in (directory / "datapath.log").read_text()


def test_restarts_of_workers_and_engines(node):
    node.datapath.attach(owner())
    switch = {"program": "vdpa-switch", "device": ""}
    for pid, name, labels in ((node.datapath.worker_pid(), "vdpa_worker_restarts_total", {"device": "nic-0"}),
                              (node.datapath.switch_pid(), "vdpa_engine_restarts_total", switch)):
        assert node.exporter.scrape().value(name, resource="vdpa.io/nic", **labels) == 0
        os.kill(pid, signal.SIGKILL)
        node.exporter.wait(lambda metrics: metrics.value(name, **labels) == 1, f"one in {name} {labels}")


def test_calls_and_how_long_they_took(node):
    def calls(metrics):
        return {(labels["command"], int(labels["code"])): value for labels, value in metrics.all("vdpa_cni_calls_total")}
    node.cni.add()
    node.cni.delete()
    node.cni.delete()
    assert run("ADD", node.cni.config(device="")).returncode == 1
    metrics = node.exporter.scrape()
    assert calls(metrics) == {("ADD", 0): 1, ("DEL", 0): 2, ("ADD", BAD_CONFIG): 1}
    for call, count in (("attach", 1), ("detach", 2)):
        name = f"vdpa_{call}_duration_seconds"
        assert metrics.value(f"{name}_count", result="ok") == count
        assert metrics.value(f"{name}_bucket", result="ok", le="+Inf") == count
        assert metrics.value(f"{name}_count", result="failed") == 0
        assert 0 < metrics.value(f"{name}_sum", result="ok") < 60
    node.datapath.kill()
    assert run("ADD", node.cni.config()).returncode == 1
    node.restart_datapath()
    node.exporter.wait(lambda found: calls(found) == {
        ("ADD", 0): 1, ("DEL", 0): 2, ("ADD", BAD_CONFIG): 1, ("ADD", TRY_AGAIN): 1}, "a call without the datapath")


def test_a_bad_configuration_and_the_one_before_again(node):
    good = node.config.read_text()
    assert node.exporter.scrape().value("vdpa_config_last_load_successful") == 1
    node.config.write_text("resources: [")
    metrics = node.exporter.wait(lambda found: found.value("vdpa_config_last_load_successful") == 0, "refused")
    assert abs(metrics.value("vdpa_config_last_load_timestamp_seconds") - time.time()) < 60
    node.config.write_text(good)
    node.exporter.wait(lambda found: found.value("vdpa_config_last_load_successful") == 1, "accepted")


def test_memory_and_drain(node):
    metrics = node.exporter.scrape()
    assert metrics.value("vdpa_memory_used_bytes") == 4096
    assert metrics.value("vdpa_memory_limit_bytes") == 64 << 20
    assert metrics.value("vdpa_memory_kills_total") == 3
    (node.cgroup / "vdpa/memory.max").write_text("max\n")
    metrics = node.exporter.wait(lambda found: "vdpa_memory_limit_bytes" not in found.types, "no limit")
    assert metrics.value("vdpa_drained") == 0
    node.datapath.stub.Drain(rpc.datapath.DrainRequest(), timeout=30)
    node.exporter.wait(lambda found: found.value("vdpa_drained") == 1 and states(found) == {"unhealthy": 4}, "drained")


def test_daemons_that_cannot_show_their_state_serve_pods(directory):
    for daemon in "datapath", "device-plugin":
        (directory / f"run/observe/vdpa-{daemon}.sock/in-the-way").mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        node = WholeNode(directory, stack)
        node.cni.add()
        for daemon in node.datapath, node.plugin:
            assert "vdpa-exporter will miss this daemon's metrics" in daemon.log()
        metrics = node.exporter.scrape()
        assert [value for _, value in metrics.all("vdpa_up")] == [0, 0]


# --- its rights

@pytest.mark.parametrize("socket", ["datapath", "device-plugin"])
def test_its_sockets_change_and_tell_nothing_else(quiet_node, socket):
    path = quiet_node.directory / f"run/observe/vdpa-{socket}.sock"
    with rpc.channel(path) as channel:
        for call, request in ((rpc.datapath.DatapathStub(channel).Drain, rpc.datapath.DrainRequest()),
                              (rpc.datapath.DatapathStub(channel).List, rpc.datapath.ListRequest()),
                              (rpc.datapath.DatapathStub(channel).SetDevices, rpc.datapath.SetDevicesRequest()),
                              (rpc.plugin.PluginStub(channel).List, rpc.plugin.ListRequest())):
            with pytest.raises(grpc.RpcError) as error:
                call(request, timeout=10)
            assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert rpc.observe.ObserveStub(channel).Read(rpc.observe.ReadRequest(), timeout=10).version
    assert (quiet_node.directory / "run").stat().st_mode & 0o777 == 0o700, "others reach the directory through a mount only"


def test_the_exporter_has_no_rights(quiet_node):
    lines = open(f"/proc/{quiet_node.exporter.pid}/status").read().splitlines()
    status = dict(line.split(":\t") for line in lines if ":\t" in line)
    assert status["Uid"].split()[1] == "65532" and int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0


# --- clients and daemons that hang

def quickly(node, limit=3.0):
    begin = time.monotonic()
    metrics = node.exporter.scrape(timeout=30)
    assert time.monotonic() - begin < limit, f"a scrape took {time.monotonic() - begin:.1f} s"
    return metrics


@pytest.mark.parametrize("request_text", [b"", HALF, WHOLE], ids=["silent", "half", "unread"])
def test_slow_clients_hold_nobody_up(quiet_node, request_text):
    with contextlib.ExitStack() as stack:
        for _ in range(600):  # more than it keeps
            stack.enter_context(quiet_node.exporter.connect(request_text))
        for _ in range(3):
            assert quickly(quiet_node).value("vdpa_up", daemon="datapath") == 1


def test_a_request_without_end_is_refused(quiet_node):
    with quiet_node.exporter.connect(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20000) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 431 ")
    with contextlib.ExitStack() as stack:
        request = HALF + b"\r\nContent-Length: 1000000\r\n\r\n"
        clients = [stack.enter_context(quiet_node.exporter.connect(request)) for _ in range(30)]

        def ended(client):
            with contextlib.suppress(OSError):
                client.send(b"x")
            try:
                return client.recv(65536) == b""
            except ConnectionError:
                return True
        for client in clients:
            wait_until(lambda: ended(client), "the end of a connection whose body has none", 20)
        assert quickly(quiet_node)


@pytest.mark.parametrize("request_text, status", [
    (b"GET / HTTP/1.1\r\n\r\n", b"404"), (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"), (b"nonsense\r\n\r\n", b"400"),
    (b"GET /healthz HTTP/1.1\r\n\r\n", b"200"), (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200")])
def test_other_requests(quiet_node, request_text, status):
    with quiet_node.exporter.connect(request_text) as client:
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"vdpa_up" not in answer


@pytest.mark.parametrize("daemon", ["datapath", "plugin"])
def test_a_daemon_that_hangs_costs_two_seconds_and_its_own_metrics(node, daemon):
    hanging = getattr(node, daemon)
    suspend(hanging.pid)
    try:
        metrics = quickly(node, 6.0)
        assert {labels["daemon"]: value for labels, value in metrics.all("vdpa_up")} == {
            "datapath": daemon != "datapath", "device-plugin": daemon != "plugin"}
    finally:
        os.kill(hanging.pid, signal.SIGCONT)
    node.exporter.wait_up("datapath", "device-plugin")


def test_a_switch_that_hangs_costs_its_own_counters(node):
    node.datapath.attach(owner())
    node.exporter.wait(lambda metrics: metrics.all("vdpa_device_receive_packets_total"), "counters")
    pid = node.datapath.switch_pid()
    suspend(pid)
    metrics = node.exporter.wait(lambda found: not found.all("vdpa_device_receive_packets_total"), "none of a hung switch")
    assert metrics.value("vdpa_up", daemon="datapath") == 1 and metrics.value("vdpa_attachment_info", device="nic-0") == 1
    for _ in range(2):
        time.sleep(1.1)   # an answer is given again for a second
        assert not node.exporter.scrape().all("vdpa_device_receive_packets_total")
    os.kill(pid, signal.SIGCONT)
    node.exporter.wait(lambda metrics: metrics.all("vdpa_device_receive_packets_total"), "counters again")
    log = node.datapath.log()
    assert [log.count(f"the counters of vdpa.io/nic {words}") for words in (
        "for the metrics: ", "can be read for the metrics again")] == [1, 1], f"once each, for all scrapes: {log}"


def test_a_flood_takes_no_scraper_s_place(quiet_node):
    """A scraper's request is read before those that connected after it are accepted, however many there are."""
    suspend(quiet_node.exporter.pid)
    with contextlib.ExitStack() as stack:
        try:
            scraper = stack.enter_context(quiet_node.exporter.connect(WHOLE))
            for _ in range(600):
                stack.enter_context(quiet_node.exporter.connect())
        finally:
            os.kill(quiet_node.exporter.pid, signal.SIGCONT)
        assert scraper.recv(15) == b"HTTP/1.1 200 OK"


def test_half_requests_to_the_daemons_hold_nobody_up(node):
    with contextlib.ExitStack() as stack:
        for daemon in ("datapath", "device-plugin"):
            path = node.directory / f"run/observe/vdpa-{daemon}.sock"
            for _ in range(100):
                client = stack.enter_context(contextlib.closing(rpc.unix_client(path)))
                client.sendall(b"PRI * HTTP/2.0\r\n")
        assert quickly(node).value("vdpa_up", daemon="datapath") == 1
        node.datapath.attach(owner())
        assert "nic-1" in node.plugin.explain("nic-1")


def test_scrapes_at_once_share_a_reading(node):
    """As many as it keeps at a time, while a daemon takes two seconds to be given up: each alone would take as long again."""
    suspend(node.datapath.pid)
    try:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(node.exporter.connect(WHOLE)) for _ in range(100)]
            begin = time.monotonic()
            for client in clients:
                client.settimeout(20)
                assert client.recv(15) == b"HTTP/1.1 200 OK"
            assert time.monotonic() - begin < 8
    finally:
        os.kill(node.datapath.pid, signal.SIGCONT)


def test_scrapes_one_after_the_other_share_a_reading(node):
    """A daemon is asked once a second, however often the exporter is."""
    seen, begin = set(), time.monotonic()
    while time.monotonic() - begin < 2.5:
        (node.cgroup / "vdpa/memory.current").write_text(f"{time.monotonic_ns()}\n")
        seen.add(node.exporter.scrape().value("vdpa_memory_used_bytes"))
    assert 1 < len(seen) <= time.monotonic() - begin + 1, len(seen)
