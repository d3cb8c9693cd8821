"""vdpa-datapath: attaching and detaching, the files for an application, and every refusal."""

import os
import pathlib
import stat
import urllib.request
from concurrent import futures

import grpc
import pytest

import rpc
from datapath import Datapath, delete_namespace, network_namespace, owner, read_json, refused, resource, settings
from kubelet import PodResources
from pod import BROADCAST, Pod, mac
from support import own_address, wait_until

INVALID = grpc.StatusCode.INVALID_ARGUMENT
ABORTED = grpc.StatusCode.ABORTED


@pytest.fixture
def datapath(directory):
    with Datapath(directory) as program:
        program.wait_serving().offer().wait_healthy()
        yield program


@pytest.fixture
def held_directory():
    """A device's directory as a lingering container sees it: by its inode, whatever its path leads to now."""
    held = []

    def hold(datapath, device="nic-0"):
        held.append(os.open(datapath.path(device), os.O_RDONLY))
        return pathlib.Path(f"/proc/self/fd/{held[-1]}/.")
    yield hold
    for descriptor in held:
        os.close(descriptor)


def test_attach_and_detach(datapath, held_directory):
    before = held_directory(datapath)
    attachment = datapath.attach(owner(pod="pod-1"), settings=settings(vlan=7, mtu=1400), ips=["10.1.1.2/24"])
    assert (attachment.device_id, attachment.resource, attachment.backend) == ("nic-0", "vdpa.io/nic", "software")
    assert attachment.socket == "/run/vdpa/nic-0/vhost.sock"
    assert (attachment.settings.vlan, attachment.settings.mtu) == (7, 1400)
    assert not before.samefile(datapath.path()), "a new owner gets a new directory"
    assert stat.S_ISSOCK(datapath.socket().stat().st_mode)
    assert stat.S_IMODE(datapath.socket().stat().st_mode) == 0o666
    assert datapath.check(owner(), settings=settings(vlan=7, mtu=1400), ips=["10.1.1.2/24"]) == []

    found = read_json(datapath.path(file="device.json"))
    assert found == {"deviceID": "nic-0", "resource": "vdpa.io/nic", "backend": "software",
                     "socket": "/run/vdpa/nic-0/vhost.sock", "mac": attachment.settings.mac, "mtu": 1400,
                     "queuePairs": 1, "queueSize": attachment.queue_size, "vlan": 7, "vlanTrunk": "", "network": "fast",
                     "interface": "net1", "ips": ["10.1.1.2/24"], "numaNode": None}
    assert datapath.path(file="eal-args").read_text() == (
        f"--vdev=net_virtio_user_net1,path=/run/vdpa/nic-0/vhost.sock,mac={attachment.settings.mac},"
        f"queues=1,queue_size={attachment.queue_size}\n")
    record = read_json(datapath.record())
    assert record["phase"] == "attached" and record["owner"]["container"] == "c0"
    assert record["bootId"] == open("/proc/sys/kernel/random/boot_id").read().strip()

    used = held_directory(datapath)
    assert datapath.detach(owner())
    assert not used.samefile(datapath.path())
    assert list(datapath.path().iterdir()) == []
    assert not datapath.record().exists()
    assert list(datapath.processes()) == ["vdpa.io-nic"]
    assert not datapath.detach(owner()), "a second Detach finds nothing"
    assert not datapath.list().attachments


def test_a_mac_is_not_taken_from_another_pod(datapath):
    wanted = settings(mac="02:00:00:00:00:01", vlan=5)
    with network_namespace() as netns:
        datapath.attach(owner(pod="till", netns=netns), settings=wanted)
        others = [owner("c1", pod="thief"), owner("c2", pod="till", namespace="other"), owner("c3")]
        for other in others:
            with refused(ABORTED, "nic-1", "mac 02:00:00:00:00:01 is already used in VLAN 5 of vdpa.io/nic by "
                         "default/till",
                         "(device nic-0)"):
                datapath.attach(other, "nic-1", wanted)
        assert not datapath.record("nic-1").exists()
        # Another network, another pod namespace; the pod itself: a second interface, and its replacement.
        datapath.attach(others[0], "nic-1", settings(mac="02:00:00:00:00:01", vlan=6))
        datapath.attach(owner("c4", pod="till"), "nic-2", wanted)
        datapath.detach(owner("c4"))
        delete_namespace(netns)
        datapath.attach(others[1], "nic-2", wanted)
    chosen = datapath.attach(owner("c5", pod="next"), "nic-3").settings.mac
    datapath.detach(others[0])
    with refused(ABORTED, chosen, "default/next"):
        datapath.attach(others[0], "nic-1", settings(mac=chosen))
    datapath.detach(owner("c5"))
    datapath.attach(others[0], "nic-1", settings(mac=chosen))


def test_modes_of_directories_and_sockets(datapath):
    def mode(path):
        return stat.S_IMODE(path.stat().st_mode)
    assert mode(datapath.run_dir) == 0o700
    assert mode(datapath.run_dir / "datapath.sock") == 0o600
    assert mode(datapath.state_dir / "owners") == 0o700
    assert mode(datapath.path("nic-3")) == 0o755
    datapath.attach(owner())
    assert mode(datapath.path()) == 0o755
    assert mode(datapath.record()) == 0o600
    assert mode(datapath.path(file="device.json")) == 0o644


LABEL = "system_u:object_r:container_file_t:s0"


def test_socket_options(directory):
    with Datapath(directory) as datapath:
        datapath.wait_serving().set_devices(resource(
            socket=rpc.datapath.SocketOptions(uid=1234, gid=4321, mode=0o620, selinux_label=LABEL))).wait_healthy()
        datapath.attach(owner())
        status = datapath.socket().stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 4321, 0o620)
        assert os.getxattr(datapath.socket(), "security.selinux").rstrip(b"\0").decode() == LABEL


@pytest.mark.parametrize("given", [("--memory-limit=512",), ()], ids=["given", "half of the node's"])
def test_a_memory_limit_reaches_the_cgroup(directory, given):
    """A generated hierarchy, in the form of cgroup v2; the clusters' nodes have real ones."""
    root = directory / "cgroup"
    (root / "vdpa").mkdir(parents=True)
    (root / "cgroup.procs").touch()
    limit = root / "vdpa/memory.max"
    limit.write_text("max", encoding="ascii")
    with Datapath(directory, "--cgroup-root", root, *given) as datapath:
        datapath.wait_serving()
    node = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    assert int(limit.read_text(encoding="ascii")) == (512 if given else node // 2 >> 20) << 20


def test_default_macs_are_stable_and_differ(datapath):
    macs = {device: datapath.attach(owner(f"c{device}", pod="pod", interface=f"net{device}"), device).settings.mac
            for device in ("nic-0", "nic-1", "nic-2")}
    assert len(set(macs.values())) == 3
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs.values()), "locally administered, unicast"
    datapath.detach(owner("cnic-1", interface="netnic-1"))
    again = datapath.attach(owner("other", pod="pod", interface="netnic-1"), "nic-3")
    assert again.settings.mac == macs["nic-1"]


@pytest.mark.parametrize("values, words", [
    ({"mac": "01:00:5e:00:00:01"}, ("mac", "multicast")),
    ({"mac": "00:00:00:00:00:00"}, ("mac",)),
    ({"mac": "02:00:00:00:01"}, ("mac", "02:00:00:00:01")),
    ({"vlan": 4095}, ("vlan", "4095", "4094")),
    ({"vlan": 5, "vlan_qos": 3}, ("vlanQoS", "3")),
    ({"vlan": 5, "vlan_proto": "802.1AD"}, ("vlanProto", "802.1ad")),
    ({"vlan_proto": "qinq"}, ("vlanProto", "qinq")),
    ({"min_tx_rate": 10}, ("min_tx_rate", "10")),
    ({"max_tx_rate": 1000001}, ("max_tx_rate", "1000001")),
    ({"max_rx_rate": 1000001}, ("max_rx_rate", "1000001")),
    ({"max_rx_rate": 1, "burst": 1048577}, ("burst", "1048577")),
    ({"burst": 64}, ("burst 64", "max_rx_rate")),
    ({"vlan_trunk": "0-9"}, ("vlanTrunk", "0-9", "4094")),
    ({"vlan_trunk": "5-9", "vlan": 6}, ("vlan 6", "vlanTrunk 5-9")),
    ({"link_state": "up"}, ("link_state", "up", "auto")),
    ({"mtu": 9000}, ("mtu", "9000", "1500")),
    ({"mtu": 60}, ("mtu", "60", "68")),
])
def test_settings_refused_by_name(datapath, values, words):
    with refused(INVALID, "nic-0", *words):
        datapath.attach(owner(), settings=settings(**values))
    assert not datapath.record().exists()


def test_settings_that_ask_for_nothing(datapath):
    attachment = datapath.attach(owner(), settings=settings(
        vlan_qos=0, vlan_proto="802.1Q", trust=False, min_tx_rate=0, max_tx_rate=0, link_state="auto",
        mac="02:AA:00:00:00:01"))
    assert attachment.settings.mac == "02:aa:00:00:00:01"


@pytest.mark.parametrize("bad, words", [
    (dict(container="../x"), ("container_id", "../x")),
    (dict(container=""), ("container_id",)),
    (dict(interface="a/b"), ("interface", "a/b")),
    (dict(interface="sixteen-bytes-xx"), ("interface",)),
    (dict(netns="relative"), ("netns", "relative")),
])
def test_owners_refused_by_name(datapath, bad, words):
    with refused(INVALID, *words):
        datapath.attach(owner(**bad))


def test_what_a_node_cannot_tell_of_all_its_attachments_is_refused(datapath):
    who = owner()
    who.network = "n" * 254
    with refused(INVALID, "network", "at most 253 bytes"):
        datapath.attach(who)
    with refused(INVALID, "65 ips: at most 64"):
        datapath.attach(owner(), ips=["10.0.0.1/24"] * 65)
    who.network = "n" * 253
    datapath.attach(who, ips=["10.0.0.1/24"] * 64)
    for more in {"ips": ["10.0.0.1/24"] * 65}, {"routes": [rpc.datapath.Route(destination="10.0.0.0/8")] * 65}:
        with refused(INVALID, f"65 {next(iter(more))}: at most 64"):
            datapath.stub.SetAddresses(rpc.datapath.SetAddressesRequest(
                container_id="c0", interface="net1", **more), timeout=20)


def test_unknown_device_and_repeated_attach(datapath):
    with refused(grpc.StatusCode.NOT_FOUND, "nic-9"):
        datapath.attach(owner(), "nic-9")
    datapath.attach(owner())
    with refused(grpc.StatusCode.ALREADY_EXISTS, "net1", "c0", "nic-0"):
        datapath.attach(owner(), "nic-1")
    with refused(grpc.StatusCode.NOT_FOUND, "c7", "nic-0"):
        datapath.check(owner("c7"))


def under_way(datapath, who, timeout=5):
    """Whether an Attach is in progress: then another for the same interface is refused before any other check."""
    try:
        datapath.attach(who, "nic-9", timeout=timeout)
    except grpc.RpcError as error:
        return error.code() == grpc.StatusCode.ALREADY_EXISTS
    raise AssertionError("nic-9 attached")


def test_attach_waits_for_the_first_set(directory):
    def attach():
        """Repeats if under_way() came first, which causes this call to be refused."""
        while True:
            try:
                return datapath.attach(owner())
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.ALREADY_EXISTS:
                    raise
    with Datapath(directory) as datapath:
        datapath.wait_serving()
        with futures.ThreadPoolExecutor(1) as pool:
            attaching = pool.submit(attach)
            wait_until(lambda: under_way(datapath, owner(), 0.2), "an Attach that waits", interval=0.2)
            datapath.offer()
            assert attaching.result(20).device_id == "nic-0"
    with Datapath(directory, name="second") as datapath:
        datapath.wait_serving()
        with refused(ABORTED, "nic-1", "vdpa-device-plugin"):
            datapath.attach(owner("c1"), "nic-1")


@pytest.mark.parametrize("bad, words", [
    ([resource("nic")], ("nic",)),
    ([resource(), resource()], ("vdpa.io/nic", "twice")),
    ([resource(), resource("vdpa.io/other", ids=["nic-1"])], ("nic-1", "twice")),
    ([resource(ids=["../etc"])], ("../etc",)),
    ([resource(ids=[".spare-x"])], (".spare-x",)),
    ([resource(queue_pairs=17)], ("17",)),
    ([resource(mtu=20)], ("20",)),
])
def test_bad_sets_are_refused_and_change_nothing(datapath, bad, words):
    with refused(INVALID, *words):
        datapath.set_devices(*bad)
    assert {state.id for state in datapath.list().devices} == {f"nic-{n}" for n in range(4)}


def test_held_device_is_waited_for_and_its_owner_named(datapath):
    with network_namespace() as netns:
        datapath.attach(owner("a" * 64, netns=netns, pod="old-pod"))
        with refused(ABORTED, "nic-0", "default/old-pod", "aaaaaaaaaaaa…", "net1"):
            datapath.attach(owner("c1", pod="new-pod"))
        # An owner that ends in time is waited for.
        with futures.ThreadPoolExecutor(1) as pool:
            attaching = pool.submit(datapath.attach, owner("c1", pod="new-pod"))
            assert datapath.detach(owner("a" * 64))
            assert attaching.result(20).owner.pod_name == "new-pod"


def test_takeover_when_the_owners_namespace_is_gone(datapath, held_directory):
    with network_namespace() as netns:
        datapath.attach(owner("old", netns=netns, pod="old-pod"))
        worker, lingering = datapath.worker_pid(), held_directory(datapath)
        delete_namespace(netns)
        datapath.attach(owner("new", pod="new-pod"))
        assert datapath.worker_pid() != worker
        assert not lingering.samefile(datapath.path())
        assert not list(lingering.iterdir()), "the old pod never sees the new socket"
        # The old pod's late DEL.
        assert not datapath.detach(owner("old"))
        assert datapath.attachment().owner.pod_name == "new-pod"
        assert datapath.socket().exists()


def test_takeover_when_the_kubelet_gave_the_device_to_another_pod(datapath, directory):
    with network_namespace() as netns, PodResources(directory) as kubelet:
        kubelet.pods["default", "old-pod"] = "vdpa.io/nic", ["nic-0"]
        datapath.attach(owner("old", netns=netns, pod="old-pod"))
        with refused(ABORTED, "old-pod"):
            datapath.attach(owner("new", pod="new-pod"))
        assert kubelet.questions
        kubelet.pods = {("default", "new-pod"): ("vdpa.io/nic", ["nic-0"])}
        assert datapath.attach(owner("new", pod="new-pod")).owner.pod_name == "new-pod"
        assert not datapath.detach(owner("old"))


def test_absence_from_pod_resources_alone_takes_nothing(datapath, directory):
    with network_namespace() as netns, PodResources(directory):
        datapath.attach(owner("old", netns=netns, pod="old-pod"))
        with refused(ABORTED, "old-pod"):
            datapath.attach(owner("new", pod="new-pod"))


def test_detach_calls_off_an_attach_that_waits(datapath):
    with network_namespace() as netns:
        datapath.attach(owner("old", netns=netns))
        with futures.ThreadPoolExecutor(1) as pool:
            attaching = pool.submit(datapath.attach, owner("new"))
            wait_until(lambda: not datapath.detach(owner("new")) and attaching.done(), "the Attach to give up", 3)
            with refused(ABORTED, "called off"):
                attaching.result()


def test_an_attach_whose_caller_has_gone_takes_nothing(datapath):
    """Its deadline passed while it waited for the owner: it doesn't take the device when the owner ends."""
    with network_namespace() as netns:
        datapath.attach(owner("old", netns=netns))
        attaching = datapath.stub.Attach.future(rpc.datapath.AttachRequest(owner=owner("new"), device_id="nic-0"))
        wait_until(lambda: under_way(datapath, owner("new")), "the Attach to be in progress", 3)
        attaching.cancel()
        datapath.wait_log("attaching nic-0 was called off", 3)
        assert datapath.attachment().owner.container_id == "old"


def test_devices_that_leave_the_set(datapath):
    datapath.attach(owner())
    worker = datapath.worker_pid()
    datapath.set_devices()
    assert not datapath.path("nic-1").exists()
    assert datapath.attachment().state == "waiting"
    assert datapath.worker_pid() == worker, "an attached device keeps working"
    assert datapath.detach(owner())
    assert not datapath.path().exists()
    assert not datapath.processes(), "no switch without devices"
    datapath.offer().wait_healthy()
    datapath.attach(owner())


def test_switch_takes_a_new_configuration_when_no_port_is_attached(datapath):
    first = datapath.switch_pid()
    datapath.offer(mtu=2000)
    # SetDevices does not wait for switches.
    wait_until(lambda: datapath.processes().get("vdpa.io-nic", first) != first, "another switch")
    datapath.wait_healthy()
    second = datapath.switch_pid()
    datapath.attach(owner())
    datapath.offer(mtu=3000)
    assert datapath.switch_pid() == second, "not under a running pod"
    datapath.wait_log("takes effect when its pods are gone")
    with refused(INVALID, "mtu 2500"):
        datapath.attach(owner("c1"), "nic-1", settings=settings(mtu=2500))
    datapath.detach(owner())
    wait_until(lambda: datapath.processes().get("vdpa.io-nic", second) != second, "another switch")
    datapath.wait_healthy()
    assert datapath.attach(owner(), settings=settings(mtu=2500)).settings.mtu == 2500


def test_check_tells_differences(datapath):
    datapath.attach(owner(), settings=settings(vlan=5), ips=["10.0.0.1/24"])
    assert datapath.check(owner(), settings=settings(vlan=5), ips=["10.0.0.1/24"]) == []
    differences = datapath.check(owner(), settings=settings(vlan=6, mac="02:00:00:00:00:09"), ips=[])
    assert any("vlan is 5; expected 6" in text for text in differences)
    assert any("mac" in text for text in differences)
    assert any("10.0.0.1/24" in text for text in differences)
    datapath.path(file="device.json").write_text("{}")
    datapath.socket().unlink()
    differences = datapath.check(owner(), settings=settings(vlan=5), ips=["10.0.0.1/24"])
    assert any("device.json" in text for text in differences)
    assert any("vhost.sock" in text for text in differences)
    assert len(differences) == 2


def test_check_tells_what_the_switch_has(datapath):
    wanted = dict(mac="02:00:00:00:00:01", spoof_check=True, trust=True, max_tx_rate=100)
    attachment = datapath.attach(owner(), settings=settings(**wanted))
    assert (attachment.settings.trust, attachment.settings.max_tx_rate) == (True, 100)
    assert datapath.check(owner(), settings=settings(**wanted)) == []
    control = datapath.switch_control()
    control.call("set_port", id="nic-0", mac="02:00:00:00:00:01", spoof_check=True, trust=False, max_tx_rate=7)
    control.close()
    differences = datapath.check(owner(), settings=settings(**wanted))
    assert len(differences) == 2
    assert any("trust is false; expected true" in text for text in differences)
    assert any("max_tx_rate is 7; expected 100" in text for text in differences)


def test_stats(datapath):
    datapath.attach(owner())
    answer = datapath.stub.Stats(rpc.datapath.StatsRequest(), timeout=10)
    assert [device.id for device in answer.devices] == ["nic-0"]
    with refused(grpc.StatusCode.NOT_FOUND, "nic-1"):
        datapath.stub.Stats(rpc.datapath.StatsRequest(device_ids=["nic-1"]), timeout=10)


@pytest.mark.release
def test_sixty_four_at_once(directory):
    with Datapath(directory) as datapath, futures.ThreadPoolExecutor(64) as pool:
        datapath.wait_serving().offer(64).wait_healthy()
        owners = {f"nic-{n}": owner(f"c{n}") for n in range(64)}
        for _ in range(2):
            made = list(pool.map(lambda item: datapath.attach(item[1], item[0], timeout=60), owners.items()))
            assert len({attachment.settings.mac for attachment in made}) == 64
            assert all(datapath.socket(device).exists() for device in owners)
            assert all(pool.map(datapath.detach, owners.values()))
            assert not datapath.list().attachments
            assert list(datapath.processes()) == ["vdpa.io-nic"]
        # All of them request the same device: one gets it.
        results = [pool.submit(datapath.attach, one, "nic-0", None, (), 60) for one in owners.values()]
        failed = [result.exception() for result in results if result.exception()]
        assert len(failed) == 63 and {error.code() for error in failed} == {ABORTED}


def test_watch(datapath):
    stream = datapath.stub.Watch(rpc.datapath.WatchRequest())
    first = next(stream)
    assert {(state.id, state.healthy) for state in first.devices} == {(f"nic-{n}", True) for n in range(4)}
    datapath.set_devices(resource(count=5))
    states = {state.id: state for state in next(stream).devices}
    assert list(states) == ["nic-4"], "only the change"
    datapath.set_devices(resource(count=3))
    states = {state.id: state for state in next(stream).devices}
    assert {device: state.removed for device, state in states.items()} == {"nic-3": True, "nic-4": True}
    gone = datapath.stub.Watch(rpc.datapath.WatchRequest())
    next(gone)
    gone.cancel()
    datapath.stop()
    with refused(grpc.StatusCode.UNAVAILABLE):
        next(stream)


def test_only_one_instance(datapath, directory):
    second = Datapath(directory, name="second")
    assert second.process.wait(10) == 1
    assert f"process {datapath.pid}" in second.log()
    assert datapath.device().healthy


def test_health_service(datapath):
    with rpc.channel(datapath.run_dir / "datapath.sock") as channel:
        answer = rpc.health.HealthStub(channel).Check(rpc.health.HealthCheckRequest(), timeout=5)
    assert answer.status == rpc.health.HealthCheckResponse.SERVING


@pytest.fixture
def address():
    """The metrics address."""
    return f"{own_address()}:9101"


def scrape(address):
    return urllib.request.urlopen(f"http://{address}/metrics", timeout=5).read().decode()


def test_metrics(directory, address):
    with Datapath(directory, "--metrics-address", address) as datapath:
        datapath.wait_serving().offer().wait_healthy()
        datapath.attach(owner())
        text = scrape(address)
        assert "vdpa_attachments 1\n" in text
        assert 'vdpa_devices{healthy="true"} 4\n' in text
        assert 'vdpa_device_packets_total{device="nic-0",direction="rx"}' in text
        assert 'vdpa_attach_seconds_count{result="ok"} 1\n' in text
        for name in "vdpa_abandoned_attachments", "vdpa_reconciliation_detached_total", "vdpa_withheld_devices":
            assert f"{name} 0\n" in text
        datapath.kill()
        datapath.record().write_text("{")
    with Datapath(directory, "--metrics-address", address, "--release-after=1", name="second") as datapath, \
            network_namespace() as netns:
        datapath.wait_serving().offer().wait_healthy("nic-1")
        datapath.attach(owner(netns=netns), "nic-1")
        delete_namespace(netns)
        wait_until(lambda: datapath.attachment("nic-1") is None, "reconciliation")
        text = scrape(address)
        for line in "vdpa_attachments 0", "vdpa_reconciliation_detached_total 1", "vdpa_withheld_devices 1":
            assert f"{line}\n" in text


def test_metrics_of_packets(directory, address):
    with Datapath(directory, "--metrics-address", address) as datapath:
        datapath.wait_serving().offer().wait_healthy()
        datapath.attach(owner(), settings=settings(mac=mac(1)))
        control = datapath.switch_control()
        with Pod(datapath.socket(), mac(1)) as pod:
            control.wait_connected("nic-0")
            pod.push(b"x")
            pod.send_to(BROADCAST, size=100)
            wait_until(lambda: control.stats("nic-0")["tx_packets"] == 2, lambda: control.stats("nic-0"))
        stats, text = control.stats("nic-0"), scrape(address)
        assert (stats["tx_bytes"], stats["rx_packets"]) == (101, 0)
        for what in "packets", "bytes":
            for direction in "rx", "tx":
                line = f'vdpa_device_{what}_total{{device="nic-0",direction="{direction}"}} {stats[f"{direction}_{what}"]}\n'
                assert line in text
        assert 'vdpa_device_dropped_packets_total{device="nic-0",reason="runt"} 1\n' in text
