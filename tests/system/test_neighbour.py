"""Programs of this release and recorded messages and files of the previous one: each understands the other, and a setting that
one of them does not know is never dropped silently."""

import contextlib
import json
import os
import subprocess

import pytest
from google.protobuf.json_format import MessageToDict

import processes
import rpc
from cni import BAD_CONFIG, DEBIAN_PLUGINS, call, refused
from datapath import PROGRAM, WORKER_DIRS, Datapath, owner, read_json, settings
from device_plugin import DevicePlugin, write_config
from fake_datapath import FakeDatapath
from kubelet import Kubelet
from neighbour import VERSION, Answers, exchanges, leave_state, messages, recorded, supervised
from pmd import programs, sysfs
from support import wait_until
from switch import Control
from sysfs import Sysfs

CNI, CNI_END, PLUGIN = recorded("cni"), recorded("cni-end"), recorded("plugin")
DEVICES = bytes.fromhex(PLUGIN["grpc"][0]["request"])
CARD = "0000:65:00.2"
THIS = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
UNKNOWN = b"\x98\x06\x01"  # field 99, which no release has
previous = messages()


def test_the_recorded_release_is_another_one():
    assert VERSION != THIS


# --- the previous release's files and processes

@contextlib.contextmanager
def left(directory, *processes):
    """Recorded processes of (program, what), by the latter; they end when asked to, or with the test."""
    with contextlib.ExitStack() as ends:
        folders = {"vdpa-worker": "workers/{}.sock", "vdpa-switch": "switches/{}/control.sock",
                   "vdpa-pmd": "pmds/{}/control.sock"}
        yield {(program, what): ends.enter_context(supervised(
            program, what, directory / "run" / folders[program].format(what), directory)) for program, what in processes}


def stopped(process):
    wait_until(lambda: not process.running(), lambda: f"the end of {process.name}:\n{process.log()}")
    assert "asked: stop" in process.log(), process.log()


def raw(datapath, method, request):
    with rpc.channel(datapath.run_dir / "datapath.sock") as channel:
        return channel.unary_unary(f"/vdpa.datapath.v1.Datapath/{method}")(request, timeout=30)


def test_records_workers_and_switches_are_taken_over_served_and_ended(directory):
    leave_state(directory, "nic-0", "nic-1")
    workers = [("vdpa-worker", "nic-0"), ("vdpa-worker", "nic-1")]
    switches = [("vdpa-switch", "vdpa.io-nic"), ("vdpa-switch", "dev.vdpa.io-other")]
    with left(directory, *workers, *switches) as found, Datapath(directory) as datapath:
        raw(datapath.wait_serving(), "SetDevices", DEVICES)
        for device in "nic-0", "nic-1", "nic-2", "other-0":
            datapath.wait_healthy(device)
        for number in range(2):
            name = f"nic-{number}"
            assert datapath.attachment(name).owner.pod_name == f"pod-c{number}"
            wait_until(lambda name=name: datapath.attachment(name).worker_version == VERSION, "the worker's first answer")
        for program, name in switches:
            stopped(found[program, name])
        datapath.wait_log("replaced vdpa-switch of vdpa.io/nic")
        for call_ in CNI["grpc"]:
            if call_["method"] == "Check":
                request = rpc.datapath.CheckRequest.FromString(bytes.fromhex(call_["request"]))
                wait_until(lambda request=request: not datapath.stub.Check(request, timeout=20).differences,
                           "everything as it was attached, on the next switch")
        for call_ in CNI_END["grpc"]:
            assert raw(datapath, call_["method"], bytes.fromhex(call_["request"])).hex() == call_["answer"]
        for program, name in workers:
            stopped(found[program, name])
            assert not datapath.record(name).exists() and not list(datapath.path(name).iterdir())


def card_options(directory):
    return (("--sysfs", sysfs(directory, CARD, "vfio-pci")), {"worker_dirs": f"{programs(directory)}:{WORKER_DIRS}"})


CARDS = rpc.datapath.Resource(
    name="vdpa.io/card", socket=rpc.datapath.SocketOptions(mode=0o666), devices=[rpc.datapath.Device(
        id=CARD, dpdk=rpc.datapath.DpdkDevice(pci_address=CARD, driver="ifc"))])


def test_a_vdpa_pmd_is_taken_over_and_replaced(directory):
    leave_state(directory, CARD)
    arguments, options = card_options(directory)
    with left(directory, ("vdpa-worker", CARD), ("vdpa-pmd", CARD)) as found:
        with Datapath(directory, *arguments, **options) as datapath:
            datapath.wait_serving().set_devices(CARDS).wait_log(f"replaced vdpa-pmd of {CARD}")
            stopped(found["vdpa-pmd", CARD])
            assert datapath.attachment(CARD).worker_version == VERSION
            assert datapath.detach(owner("c2"))
            stopped(found["vdpa-worker", CARD])


# --- processes of this release under a datapath of the previous one

# These depend on the process or the machine.
VOLATILE = "pid", "reason", "connected", "created", "bootId", "netnsDevice", "netnsInode"


def lacking(was, now, path=""):
    """Where a current answer, or a record, lacks what the recorded one had; except values of the process and the machine."""
    if isinstance(was, dict):
        for key, value in was.items():
            if not isinstance(now, dict) or key not in now:
                yield f"{path}/{key} is missing"
            elif key not in VOLATILE and not (key == "version" and isinstance(value, str)):
                yield from lacking(value, now[key], f"{path}/{key}")
    elif isinstance(was, list) and was and isinstance(was[0], dict):
        for index, value in enumerate(was):
            yield from lacking(value, now[index], f"{path}/{index}") if index < len(now) else [f"{path}/{index} is missing"]
    elif "packets" in path or "bytes" in path or "/drops/" in path:
        if not isinstance(now, int):
            yield f"{path} is {now!r}, not a number"
    elif was != now:
        yield f"{path} is {now!r}, not {was!r}"


def obey(datapath, program, what, control):
    """Each recorded request gets an answer with all fields that a datapath of the previous release reads."""
    pid = next(pid for name, pid in datapath.served() if name == what and f"/{program}" in os.readlink(f"/proc/{pid}/exe"))
    dialogues = json.loads(json.dumps(recorded(f"control/{program}-{what}")).replace("{dir}", str(datapath.directory)))
    control = Control(control)
    asked = set()
    questions = [pair for pair in exchanges(dialogues["started"][0]) if pair[0]["op"] == "stats"]
    for request, answer in questions + exchanges(dialogues["adopted"][0]):
        now = control.raw(json.dumps(request).encode())
        differences = list(lacking(answer, now))
        assert not differences, f"{request}: {differences}"
        asked.add(request["op"])
    control.close()
    if "stop" in asked:
        wait_until(lambda: processes.ended(pid), f"the end of {program} of {what}")
    return asked


def test_workers_and_switches_obey_a_datapath_of_the_previous_release(directory):
    with Datapath(directory) as datapath:
        raw(datapath.wait_serving(), "SetDevices", DEVICES)
        datapath.wait_healthy()
        for call_ in CNI["grpc"]:
            raw(datapath, call_["method"], bytes.fromhex(call_["request"]))
        for device in "nic-0", "nic-1":
            wait_until(lambda device=device: datapath.attachment(device).state == "waiting", f"{device} ready")
        datapath.kill()
        assert obey(datapath, "vdpa-worker", "nic-0", datapath.run_dir / "workers/nic-0.sock") == {"hello", "stop"}
        assert obey(datapath, "vdpa-switch", "vdpa.io-nic", datapath.run_dir / "switches/vdpa.io-nic/control.sock") == {
            "stats", "hello", "set_port", "remove_port"}


def test_a_vdpa_pmd_obeys_a_datapath_of_the_previous_release(directory):
    arguments, options = card_options(directory)
    with Datapath(directory, *arguments, **options) as datapath:
        datapath.wait_serving().set_devices(CARDS).wait_healthy(CARD)
        datapath.attach(owner("c2"), CARD, settings=settings(mtu=1500))
        datapath.kill()
        assert obey(datapath, "vdpa-pmd", CARD, datapath.run_dir / f"pmds/{CARD}/control.sock") == {"hello", "stop"}


# --- gRPC

def as_previous(name, message):
    """A message as the previous release reads it, without the parts that differ between runs."""
    def without(value):
        if isinstance(value, dict):
            return {key: without(item) for key, item in value.items() if key not in ("created", "state", "workerVersion")}
        return [without(item) for item in value] if isinstance(value, list) else value
    return without(MessageToDict(previous(name).FromString(message)))


def test_requests_of_the_previous_release_are_answered_as_it_expects(directory):
    with Datapath(directory) as datapath:
        datapath.wait_serving()
        for call_ in PLUGIN["grpc"][:1] + CNI["grpc"] + CNI_END["grpc"]:
            if call_ is CNI_END["grpc"][0]:  # everything is attached: the files are the same too
                for device in "nic-0", "nic-1":
                    differences = list(lacking(recorded(f"state/owners/{device}"), read_json(datapath.record(device)), device))
                    assert not differences, differences
            answer = raw(datapath, call_["method"], bytes.fromhex(call_["request"]))
            if call_["method"] == "SetDevices":
                for device in "nic-0", "nic-1", "nic-2", "other-0":
                    datapath.wait_healthy(device)
            name = f"{call_['method']}Response"
            assert as_previous(name, answer) == as_previous(name, bytes.fromhex(call_["answer"])), call_["method"]


def requests_of(calls):
    return [(name, as_previous(f"{name}Request", bytes.fromhex(request) if isinstance(request, str) else request))
            for name, request in calls]


def run_cni(call_, answers):
    return call(call_["command"], {**call_["config"], "datapathSocket": str(answers.path)}, {
        "CNI_CONTAINERID": call_["container"], "CNI_PATH": str(DEBIAN_PLUGINS),
        "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-{call_['container']}"})


def test_the_cni_plugin_works_with_a_datapath_of_the_previous_release(directory):
    with Answers(directory / "run/datapath.sock", CNI["grpc"], CNI_END["grpc"]) as answers:
        for call_ in CNI["calls"] + CNI_END["calls"]:
            assert run_cni(call_, answers) == call_["output"], call_["command"]
        # It understands the requests. CHECK asks for the list last, and for the interface's MAC in its own call.
        expected = requests_of((c["method"], c["request"]) for c in CNI["grpc"] + CNI_END["grpc"])
        check = next(index for index, (method, _) in enumerate(expected) if method == "Check")
        expected[check][1]["interfaceMac"] = CNI["calls"][0]["output"]["interfaces"][0]["mac"]
        assert expected[check - 1][0] == "List"
        expected[check - 1:check + 1] = reversed(expected[check - 1:check + 1])
        assert requests_of(answers.asked) == expected


def test_the_device_plugin_works_with_a_datapath_of_the_previous_release(directory):
    kubelet = Kubelet(directory).start()
    with Answers(directory / "run/datapath.sock", PLUGIN["grpc"]) as answers:
        with DevicePlugin(directory, write_config(directory, *PLUGIN["config"]["resources"])) as plugin:
            for resource, ports in ("vdpa.io/nic", 3), ("dev.vdpa.io/other", 1):
                wait_until(lambda resource=resource, ports=ports: list(kubelet.wait_plugin(resource).devices.values())
                           == ["Healthy"] * ports, plugin.log)
        assert requests_of(answers.asked[:1]) == requests_of([("SetDevices", DEVICES)])
    kubelet.stop()


# --- fields unknown to the other side

EVERYTHING = {"mac": "02:11:22:33:44:55", "vlan": 100, "vlanQoS": 3, "vlanProto": "802.1q", "spoofchk": "on", "trust": "on",
              "link_state": "enable", "min_tx_rate": 1, "max_tx_rate": 500, "mtu": 1400, "vlanTrunk": "200-210",
              "max_rx_rate": 5, "burst": 64}
KEYS = {"vlan_qos": "vlanQoS", "vlan_proto": "vlanProto", "spoof_check": "spoofchk", "vlan_trunk": "vlanTrunk"}


def of_this_release(method, answer):
    """A recorded answer of 0.1.0 with the settings that only later releases repeat."""
    if method != "Attach":
        return answer
    message = rpc.datapath.AttachResponse.FromString(answer)
    settings = message.attachment.settings
    settings.vlan_trunk, settings.max_rx_rate, settings.burst = "200-210", 5, 64
    return message.SerializeToString()


def altered(alter, response="AttachResponse"):
    """A change of the recorded answers of this kind."""
    def change(method, answer):
        answer = of_this_release(method, answer)
        if f"{method}Response" != response:
            return answer
        message = getattr(rpc.datapath, response).FromString(answer)
        alter(message)
        return message.SerializeToString()
    return change


def ask_everything(directory, change=of_this_release):
    with Answers(directory / "run/datapath.sock", CNI["grpc"], CNI_END["grpc"], change=change) as answers:
        return answers, run_cni({**CNI["calls"][0], "config": {**CNI["calls"][0]["config"], **EVERYTHING}}, answers)


def test_a_network_that_asks_for_everything_is_served(directory):
    assert set(EVERYTHING) == {KEYS.get(field.name, field.name) for field in rpc.datapath.Settings.DESCRIPTOR.fields}
    answers, result = ask_everything(directory)
    assert result and answers.methods() == ["Attach", "SetAddresses"]


def test_settings_that_0_1_0_does_not_know_undo_the_attachment(directory):
    with refused(BAD_CONFIG, "vlanTrunk, max_rx_rate, burst are not in force on nic-0", f"vdpa-datapath {VERSION} "):
        ask_everything(directory, lambda method, answer: answer)


@pytest.mark.parametrize("field", [field.name for field in rpc.datapath.Settings.DESCRIPTOR.fields])
@pytest.mark.parametrize("version", [None, "0.3.0"])
def test_a_setting_that_the_datapath_does_not_know_undoes_the_attachment(directory, field, version):
    asked = []

    def alter(response):
        response.attachment.settings.ClearField(field)
        if version:
            response.receiver.version = version
    change = altered(alter)

    def seen(method, answer):
        asked.append(method)
        return change(method, answer)
    with refused(BAD_CONFIG, f"{KEYS.get(field, field)} is not in force on nic-0", f"vdpa-datapath {version or VERSION} ",
                 f"CNI plugin {THIS} ", "update vdpa-datapath"):
        ask_everything(directory, seen)
    assert asked == ["Attach", "Detach"]


@pytest.mark.parametrize("response, alter, words", [
    ("AttachResponse", lambda r: r.receiver.unknown_fields.append("AttachRequest.7"), "field AttachRequest.7"),
    ("SetAddressesResponse", lambda r: r.receiver.unknown_fields.append("Route.8"), "field Route.8"),
    ("SetAddressesResponse", lambda r: r.attachment.ClearField("ips"), "ips"),
    ("AttachResponse", lambda r: [r.attachment.settings.ClearField(f) for f in ("mtu", "vlan")],
     "vlan, mtu are not in force on nic-0")])
def test_more_that_it_does_not_know_undoes_the_attachment(directory, response, alter, words):
    asked = []
    change = altered(alter, response)

    def seen(method, answer):
        asked.append(method)
        return change(method, answer)
    with refused(BAD_CONFIG, words, THIS):
        ask_everything(directory, seen)
    assert asked[-1] == "Detach"


def test_the_datapath_reports_what_it_does_not_know(directory):
    """In any part of a request; a request without unknown fields has nothing to report."""
    with Datapath(directory) as datapath:
        devices = rpc.datapath.SetDevicesRequest.FromString(DEVICES)
        known = datapath.wait_serving().stub.SetDevices(devices, timeout=20).receiver
        assert (known.version, list(known.unknown_fields)) == (THIS, [])
        devices.resources[0].MergeFromString(UNKNOWN)
        for device in devices.resources[0].devices:
            device.MergeFromString(UNKNOWN)
        devices.resources[1].software.MergeFromString(UNKNOWN)
        assert list(datapath.stub.SetDevices(devices, timeout=20).receiver.unknown_fields) == [
            "Device.99", "Resource.99", "SoftwareSwitch.99"]
        request = rpc.datapath.AttachRequest(owner=owner(), device_id="nic-0", addresses_follow=True)
        request.settings.MergeFromString(UNKNOWN)
        request.MergeFromString(UNKNOWN)
        datapath.wait_healthy()
        receiver = datapath.stub.Attach(request, timeout=20).receiver
        assert (receiver.version, list(receiver.unknown_fields)) == (THIS, ["AttachRequest.99", "Settings.99"])
        addresses = rpc.datapath.SetAddressesRequest(container_id="c0", interface="net1", ips=["10.9.0.7/16"])
        addresses.routes.add(destination="10.0.0.0/8").MergeFromString(UNKNOWN)
        assert list(datapath.stub.SetAddresses(addresses, timeout=20).receiver.unknown_fields) == ["Route.99"]
        check = rpc.datapath.CheckRequest(owner=owner(), device_id="nic-0")
        check.settings.MergeFromString(UNKNOWN)
        assert list(datapath.stub.Check(check, timeout=20).receiver.unknown_fields) == ["Settings.99"]


def test_a_device_of_a_kind_that_the_datapath_does_not_know_is_no_port_of_a_switch(directory):
    with Datapath(directory) as datapath:
        devices = rpc.datapath.SetDevicesRequest.FromString(DEVICES)
        later = devices.resources.add(name="vdpa.io/later").devices.add(id="later-0")
        later.MergeFromString(UNKNOWN)
        assert "Device.99" in datapath.wait_serving().stub.SetDevices(devices, timeout=20).receiver.unknown_fields
        datapath.wait_healthy()
        assert "later-0" not in [device.id for device in datapath.list().devices]


def resources(nic, other):
    return [{"name": name, "backend": "software", "software": {"ports": 2, **keys}}
            for name, keys in (("nic", nic), ("other", other))]


@pytest.fixture
def node(directory):
    """A plugin with two resources, and a datapath that the test chooses."""
    kubelet, datapath = Kubelet(directory).start(), FakeDatapath(directory)
    config = write_config(directory, *resources({"cores": "0"}, {}))
    with DevicePlugin(directory, config) as plugin:
        def wait(resource, health):
            wait_until(lambda: list(kubelet.wait_plugin(f"vdpa.io/{resource}").devices.values()) == [health] * 2,
                       lambda: f"{resource} {health}; {kubelet.plugins[f'vdpa.io/{resource}'].lists[-1:]}\n{plugin.log()}")
        yield datapath, plugin, wait
    kubelet.stop()
    datapath.stop()


def test_a_resource_of_which_the_datapath_does_not_know_all_is_unhealthy(node):
    datapath, plugin, wait = node
    datapath.receiver = rpc.datapath.Receiver(version="0.3.0", unknown_fields=["SoftwareSwitch.4", "KernelDevice.6"])
    datapath.start()
    wait("other", "Healthy")
    wait("nic", "Unhealthy")
    reason = (f"vdpa.io/nic: SoftwareSwitch.cores is not in force: vdpa-datapath 0.3.0 does not know it, vdpa-device-plugin "
              f"{THIS} does: update vdpa-datapath on this node")
    assert reason in plugin.explain("nic-0")
    datapath.report("nic-0", True)  # whatever the datapath reports of them
    datapath.report("other-0", False, "heard")
    wait_until(lambda: "heard" in plugin.explain("other-0"), "both heard")
    assert reason in plugin.explain("nic-0")
    datapath.stop()
    datapath.receiver = rpc.datapath.Receiver(version="0.3.1")
    datapath.start()
    wait("nic", "Healthy")


def test_what_a_datapath_was_once_found_not_to_know_is_not_offered_before_it_answers(node):
    datapath, plugin, wait = node
    datapath.receiver = rpc.datapath.Receiver(version="0.3.0", unknown_fields=["SoftwareSwitch.4"])
    datapath.start()
    wait("other", "Healthy")
    wait("nic", "Unhealthy")
    datapath.receiver = rpc.datapath.Receiver(version="0.3.0")  # of the next set, which lacks the key
    plugin.configure(*resources({}, {}))
    wait_until(lambda: len(datapath.sets) == 2, plugin.log)
    wait("nic", "Healthy")
    datapath.open.clear()
    plugin.configure(*resources({}, {"cores": "0"}))
    wait("other", "Unhealthy")
    assert len(datapath.sets) == 2 and "SoftwareSwitch.cores is not in force" in plugin.explain("other-0")
    wait("nic", "Healthy")
    datapath.stop()
    datapath.receiver = rpc.datapath.Receiver(version="0.3.1", unknown_fields=["SoftwareSwitch.2", "SoftwareSwitch.4"])
    datapath.start()
    both = "vdpa.io/other: SoftwareSwitch.cores, SoftwareSwitch.mtu "
    wait_until(lambda: both + "are not in force: vdpa-datapath 0.3.1 does not know them" in plugin.explain("other-0"),
               plugin.log)


def test_a_key_that_came_after_the_previous_release_is_named(directory):
    """`vdpa` of a resource with provision: a key that is set is refused; a default that does not apply is only logged."""
    tree = Sysfs(directory / "sys", pfs=1, vfs=1)
    tree.remove_vdpa(0, 0, "vdpa0")
    tree.set_driver(tree.vf(0, 0), "mlx5_core", "15B3:101E", "15B3:0058")
    datapath = FakeDatapath(directory)
    datapath.receiver = None
    datapath.start()
    card = {"name": "card", "devices": [{"vendors": ["15b3"]}], "provision": "vdpa"}
    config = write_config(directory, {**card, "vdpa": {"queuePairs": 4}})
    with DevicePlugin(directory, config, "--sysfs", tree.root, own_network=True) as plugin:
        plugin.wait_log(f"vdpa.io/card: vdpa is not in force: vdpa-datapath {VERSION} does not know it, vdpa-device-plugin "
                        f"{THIS} does")
        plugin.configure(card)
        plugin.wait_log(f"vdpa.io/card: vdpa-datapath {VERSION} is older than this program and makes vDPA devices with their "
                        "drivers' defaults")
        assert plugin.log().count("is not in force") == 1
    datapath.stop()
