"""The CNI plugin with a real vdpa-datapath, worker and switch: the results of ADD and CHECK, and what DEL and GC release."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
from concurrent import futures

import pytest

import rpc
from cni import (daemon, device_info, name_in, node, own_node,  # noqa: F401 (fixtures)
                 ATTACHED_ALREADY, BAD_CONFIG, DEVICE_INFO, DIFFERS, INCOMPATIBLE, NETNS, NOT_AVAILABLE, PROGRAM,
                 TRY_AGAIN, UNKNOWN_CONTAINER, VARIABLES, VERSIONS, Node, Refused, call, refused, run)
from datapath import Datapath, delete_namespace, network_namespace, read_json, resource
from support import suspend, wait_until

SOCKET = "/run/vdpa/nic-0/vhost.sock"
MAC = "02:00:00:00:00:%02x"


@pytest.mark.parametrize("version", VERSIONS)
def test_result_of_each_version(node, version):
    result = node.add(version=version, mac=MAC % 1, mtu=1400)
    interface = {"name": "net1", "mac": MAC % 1, "sandbox": NETNS}
    if version == "1.1.0":
        interface.update(mtu=1400, socketPath=SOCKET)
    assert result == {"cniVersion": version, "interfaces": [interface]}
    if version >= "0.4.0":
        node.check(result, version=version, mac=MAC % 1, mtu=1400)
    node.delete(version=version)
    assert node.owners() == {}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_chained_result_is_passed_on(node, version):
    before = {"cniVersion": version,
              "interfaces": [{"name": "br0", "mac": MAC % 9}, {"name": "net1", "sandbox": NETNS}],
              "ips": [{"address": "192.0.2.7/24", "interface": 1}], "routes": [{"dst": "0.0.0.0/0", "gw": "192.0.2.1"}],
              "dns": {"nameservers": ["192.0.2.53"]}}
    result = node.add(version=version, prevResult=before)
    ours = result["interfaces"].pop()
    assert (ours["name"], ours["sandbox"]) == ("net1", NETNS) and ours["mac"] != MAC % 9
    assert result == before
    result["interfaces"].append(ours)
    if version >= "0.4.0":
        node.check(result, version=version)


def test_what_the_application_finds(node):
    node.add(mac=MAC % 1, vlan=7, interface="eth7", container="c7",
             arguments="IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=till;K8S_POD_UID=0-1")
    found = read_json(node.datapath.path(file="device.json"))
    assert {key: found[key] for key in ("deviceID", "socket", "mac", "vlan", "network", "interface", "ips")} == {
        "deviceID": "nic-0", "socket": SOCKET, "mac": MAC % 1, "vlan": 7, "network": "fast",
        "interface": "eth7", "ips": []}
    assert node.datapath.socket().is_socket()
    owner = node.datapath.attachment().owner
    assert owner == rpc.datapath.Owner(container_id="c7", interface="eth7", netns=NETNS, network="fast",
                                       pod_namespace="shop", pod_name="till", pod_uid="0-1")
    node.delete(container="c7", interface="eth7")
    assert list(node.datapath.path().iterdir()) == []


def test_order_of_the_macs(node):
    sources = [({"runtimeConfig": {"mac": MAC % 1}}, None), ({}, f"IgnoreUnknown=1;MAC={MAC % 2}"),
               ({"args": {"cni": {"mac": MAC % 3}}}, None), ({"mac": (MAC % 10).upper()}, None)]
    given = [MAC % 1, MAC % 2, MAC % 3, MAC % 10]
    for first in range(len(sources)):
        config, arguments = {}, None
        for keys, text in sources[first:]:
            config.update(keys)
            arguments = arguments or text
        assert node.add(arguments=arguments, **config)["interfaces"][0]["mac"] == given[first]
        node.delete()
    default = node.add()["interfaces"][0]["mac"]
    assert int(default[:2], 16) & 3 == 2 and default not in given


def test_the_last_of_repeated_arguments_counts(node):
    result = node.add(arguments=f"MAC={MAC % 1};MAC={MAC % 2};K8S_POD_NAME=a;MAC={MAC % 1}")
    assert result["interfaces"][0]["mac"] == MAC % 1


@pytest.mark.parametrize("places", [("deviceID",), ("pciBusID",), ("runtimeConfig",),
                                    ("deviceID", "pciBusID", "runtimeConfig")])
def test_places_of_the_device_id(node, places):
    both = {"deviceID": "nic-1", "pciBusID": "nic-1"}
    config = {place: both if place == "runtimeConfig" else "nic-1" for place in places}
    node.add(device=None, **config)
    assert node.owners() == {"nic-1": ("c0", "net1")}


def test_pci_addresses_are_told_from_1_1_0(directory):
    with Datapath(directory) as program:
        node = Node(program.wait_serving().set_devices(resource(ids=["0000:3b:02.1"])))
        assert node.add(device="0000:3b:02.1")["interfaces"][0]["pciID"] == "0000:3b:02.1"
        node.delete()
        assert "pciID" not in node.add(device="0000:3b:02.1", version="1.0.0")["interfaces"][0]


@pytest.mark.parametrize("config, words", [
    ({"vlan": 5, "vlanQoS": 3}, ("vlanQoS", "3")), ({"vlan": 5, "vlanProto": "802.1AD"}, ("vlanProto", "802.1ad")),
    ({"min_tx_rate": 10}, ("min_tx_rate", "10")),
    ({"mtu": 9000}, ("mtu", "9000", "1500")), ({"device": "nic-9"}, ("nic-9",))])
def test_what_a_software_port_cannot_do(node, config, words):
    with refused(BAD_CONFIG, *words):
        node.add(**config)
    assert node.owners() == {}


def test_settings_that_ask_for_nothing(node):
    node.add(vlan=0, vlanQoS=0, vlanProto="802.1Q", trust="off", min_tx_rate=0, max_tx_rate=0,
             link_state="auto", spoofchk="ON", vlanTrunk="", max_rx_rate=0, burst=0)


def test_a_trunk_and_rates_in_both_directions(node):
    asked = {"vlan": 7, "vlanTrunk": "200,100-110", "max_tx_rate": 10, "max_rx_rate": 20, "burst": 64}
    result = node.add(**asked)
    found = node.datapath.attachment().settings
    assert (found.vlan, found.vlan_trunk, found.max_tx_rate, found.max_rx_rate, found.burst) == (7, "100-110,200", 10, 20, 64)
    node.check(result, **asked)
    node.check(result, **{**asked, "vlanTrunk": "100-105,106-110,200"})
    with refused(DIFFERS, "vlanTrunk is 100-110,200; expected 100-110"):
        node.check(result, **{**asked, "vlanTrunk": "100-110"})
    with refused(DIFFERS, "burst is 64; expected 0"):
        node.check(result, **{**asked, "burst": 0})


def test_a_second_add(node):
    first = node.add(mac=MAC % 1)
    with refused(ATTACHED_ALREADY, "c0", "net1"):
        node.add(mac=MAC % 2)
    with refused(ATTACHED_ALREADY, "c0", "net1"):
        node.add(device="nic-1")
    node.check(first, mac=MAC % 1)
    node.add(device="nic-1", interface="net2")
    assert node.owners() == {"nic-0": ("c0", "net1"), "nic-1": ("c0", "net2")}
    node.delete()
    node.add(mac=MAC % 2)


def test_a_device_that_another_pod_has(node):
    first = "a" * 64
    node.add(container=first, arguments="K8S_POD_NAMESPACE=shop;K8S_POD_NAME=till")
    with refused(TRY_AGAIN, "nic-0", "shop/till", "aaaaaaaaaaaa…", "net1"):
        node.add(container="c1", arguments="K8S_POD_NAMESPACE=shop;K8S_POD_NAME=other")
    node.delete(container="c1")
    assert node.owners() == {"nic-0": (first, "net1")}, "a pod's late DEL does not affect another pod's device"


def test_many_calls_at_once(node):
    devices = ["nic-0", "nic-1", "nic-2"]

    def add(number):
        try:
            return node.add(container=f"c{number}", device=devices[number % 3])["interfaces"][0]["mac"]
        except Refused as error:
            assert error.code == TRY_AGAIN, str(error)
            return None
    with futures.ThreadPoolExecutor(6) as pool:
        given = list(pool.map(add, range(6)))
        owners = node.owners()
        winners = {f"c{number}" for number, mac in enumerate(given) if mac}
        assert set(owners) == set(devices) and {container for container, _ in owners.values()} == winners
        list(pool.map(lambda number: node.delete(container=f"c{number % 6}"), range(12)))
    assert node.owners() == {}


def test_a_runtime_that_kills_its_plugin(node):
    node.add()
    environment = {**VARIABLES, "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "PATH": os.environ["PATH"]}
    with subprocess.Popen([PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as waiting:
        waiting.stdin.write(json.dumps(node.config()).encode())
        waiting.stdin.close()
        wait_until(lambda: "socket:" in " ".join(links(waiting.pid)), "an ADD that waits for its device")
        waiting.kill()
    node.delete(container="c1")
    node.delete()
    node.add(container="c2")
    assert node.owners() == {"nic-0": ("c2", "net1")}


def links(pid):
    """The targets of a process's descriptors."""
    folder = pathlib.Path(f"/proc/{pid}/fd")
    found = []
    for entry in list(folder.iterdir()):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(entry))
    return found


def test_a_late_del_of_the_old_pod_changes_nothing_for_the_new_one(node):
    with network_namespace() as netns:
        node.add(container="old", netns=netns)
    result = node.add(container="new", mac=MAC % 1)   # taken from its owner, whose namespace is gone
    record = node.datapath.record().read_text()
    node.delete(container="old", netns=None)
    assert node.datapath.record().read_text() == record
    node.check(result, container="new", mac=MAC % 1)


def test_a_daemon_that_hangs_costs_a_pod_little_time(own_node):
    own_node.add()
    suspend(own_node.datapath.pid)
    try:
        begin = time.monotonic()
        own_node.delete()
        assert time.monotonic() - begin < 5
        begin = time.monotonic()
        with refused(TRY_AGAIN, "datapath.sock", "no HTTP/2 SETTINGS within 2000 ms", "is the vdpa-datapath DaemonSet"):
            own_node.add(container="c1", device="nic-1")
        assert time.monotonic() - begin < 5
    finally:
        own_node.datapath.process.send_signal(signal.SIGCONT)


def test_del_calls_off_an_add_that_waits(node):
    node.add()
    with futures.ThreadPoolExecutor(1) as pool:
        with subprocess.Popen([PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={
                **VARIABLES, "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "PATH": os.environ["PATH"]}) as waiting:
            waiting.stdin.write(json.dumps(node.config()).encode())
            waiting.stdin.close()
            wait_until(lambda: "socket:" in " ".join(links(waiting.pid)), "an ADD that waits for its device")
            deleting = pool.submit(node.delete, container="c1")
            answer = json.loads(waiting.stdout.read())
            deleting.result(20)
    assert answer["code"] == TRY_AGAIN, answer
    assert node.owners() == {"nic-0": ("c0", "net1")}


def test_del_in_every_state(node):
    node.delete()
    node.add()
    node.delete(netns="")
    node.delete(netns=None)
    node.add()
    node.delete(netns="/nonexistent/netns", device=None, name="fast")
    node.delete()
    with network_namespace() as netns:
        node.add(netns=netns)
        delete_namespace(netns)
        node.delete(netns=netns)
    assert node.owners() == {}


def test_check(node):
    config = {"mac": MAC % 1, "vlan": 7}
    result = node.add(**config)
    node.check(result, **config)
    ours = result["interfaces"][0]

    def changed(**keys):
        return {**result, "interfaces": [{**ours, **keys}]}
    for wrong, words in [(changed(name="net2"), ("no interface net1",)),
                         ({**result, "interfaces": []}, ("no interface net1",)),
                         (changed(mac=MAC % 2), ("mac", MAC % 1, MAC % 2)),
                         (changed(mtu=9000), ("mtu", "9000", "1500")),
                         (changed(socketPath="/x"), ("socketPath", SOCKET, "/x")),
                         ({**result, "ips": [{"address": "192.0.2.1/24", "interface": 0}]}, ("192.0.2.1/24",))]:
        with refused(DIFFERS, "net1", *words):
            node.check(wrong, **config)
    with refused(DIFFERS, "vlan"):
        node.check(result, mac=MAC % 1, vlan=8)
    with refused(DIFFERS, "mac"):
        node.check(result, mac=MAC % 2, vlan=7)
    with refused(UNKNOWN_CONTAINER, "c1", "net1"):
        node.check(result, container="c1", **config)
    with refused(BAD_CONFIG, "nic-1", "its owner: none"):
        node.check(result, device="nic-1", **config)
    with refused(BAD_CONFIG, "prevResult"):
        node.call("CHECK", **config)
    with refused(INCOMPATIBLE, "CHECK", "0.4.0"):
        node.check(result, version="0.3.1", **config)
    node.check(changed(mac=(MAC % 1).upper()), **config)
    node.datapath.socket().unlink()
    with refused(DIFFERS, "vhost.sock"):
        node.check(result, **config)


def test_check_in_a_chain_finds_our_interface(node):
    before = {"interfaces": [{"name": "net1", "mac": MAC % 9, "sandbox": NETNS}],
              "ips": [{"address": "192.0.2.7/24", "interface": 0}]}
    result = node.add(prevResult=before, mac=MAC % 1)
    node.check(result, mac=MAC % 1)
    result["interfaces"].append({"name": "net1", "mac": MAC % 8, "sandbox": NETNS})  # of a later plugin
    node.check(result, mac=MAC % 1)
    node.check(result)  # the attachment's MAC tells, where the configuration has none


@pytest.mark.parametrize("valid, left", [
    ([("c0", "net1"), ("c1", "net1")], {"nic-0", "nic-1", "nic-2"}), ([("c1", "net1")], {"nic-1", "nic-2"}),
    ([("c0", "net2"), ("c2", "net1")], {"nic-2"}), ([], {"nic-2"})])
def test_garbage_collection(node, valid, left):
    node.add()
    node.add(container="c1", device="nic-1")
    node.add(container="c2", device="nic-2", name="slow")
    for _ in range(2):
        assert node.collect(valid) is None
        assert set(node.owners()) == left, "of this network only"
    node.collect(valid, name="another")
    assert set(node.owners()) == left


def test_garbage_collection_without_a_list(node):
    node.add()
    with refused(BAD_CONFIG, "cni.dev/valid-attachments"):
        node.call("GC")
    assert set(node.owners()) == {"nic-0"}
    # libcni writes null for an empty list.
    assert call("GC", {**node.config(), "cni.dev/valid-attachments": None}) is None
    assert node.owners() == {}


def test_device_info_file(node, device_info):
    path = device_info
    with refused(BAD_CONFIG, "min_tx_rate"):
        node.add(min_tx_rate=1, runtimeConfig={"CNIDeviceInfoFile": str(path)})
    assert not path.exists()
    node.add(runtimeConfig={"CNIDeviceInfoFile": str(path)})
    assert read_json(path) == {"type": "vhost-user", "version": "1.1.0",
                               "vhost-user": {"mode": "client", "path": SOCKET}}
    assert [entry.name for entry in path.parent.glob(f"*{path.name}*")] == [path.name]
    node.delete(runtimeConfig={"CNIDeviceInfoFile": str(path)})
    assert path.exists(), "the delegating plugin removes it"


@pytest.mark.parametrize("there, left", [
    # The device plugin's file, byte for byte.
    ('{"vhost-user": {"path": "%s", "mode": "client"},  "type": "vhost-user", "version": "1.1.0"}' % SOCKET, True),
    ('{"vhost-user": {"path": "%s", "mode": "client", "more": 1}, "type": "vhost-user", "version": "1.1.0"}' % SOCKET,
     True),
    ('{"vhost-user": {"path": "/elsewhere", "mode": "client", "more": 1}, "type": "vhost-user", "version": "1.1.0"}',
     False),
    ('{"type": "pci", "version": "1.1.0", "pci": {"pci-address": "0000:3b:02.1"}}', False),
    ("not JSON", False), ("", False), ("[]", False), ('{"type": 7}', False)])
def test_a_device_info_file_that_is_there(node, device_info, there, left):
    path = device_info
    path.write_text(there)
    node.add(runtimeConfig={"CNIDeviceInfoFile": str(path)})
    if left:
        assert path.read_text() == there
    else:
        more = {"more": 1} if "more" in there else {}
        assert read_json(path) == {"type": "vhost-user", "version": "1.1.0",
                                   "vhost-user": {"mode": "client", "path": SOCKET, **more}}


def test_del_removes_what_a_killed_add_left_beside_the_device_info(node, device_info):
    config = {"runtimeConfig": {"CNIDeviceInfoFile": str(device_info)}}
    node.add(**config)
    left, another = (device_info.with_name(f".{device_info.name}{ending}") for ending in ("", "-c1_net1"))
    with contextlib.ExitStack() as stack:
        for path in left, another:
            path.touch()
            stack.callback(path.unlink, missing_ok=True)
        node.delete(**config)
        assert not left.exists() and another.exists() and device_info.exists()


def test_an_add_that_cannot_write_its_device_info_is_undone(node, device_info):
    device_info.mkdir()
    with refused(5, str(device_info), "remove it"):
        node.add(runtimeConfig={"CNIDeviceInfoFile": str(device_info)})
    assert node.owners() == {} and list(node.datapath.path().iterdir()) == []


@pytest.mark.parametrize("ending", ["-c1_net1", "-c0_net2", "-c0_net1.tmp"])
def test_the_device_info_file_of_another_attachment(node, ending):
    theirs = json.dumps({"type": "vhost-user", "vhost-user": {"path": "/theirs"}})
    with name_in(DEVICE_INFO, ending) as path:
        path.write_text(theirs)
        config = {"runtimeConfig": {"CNIDeviceInfoFile": str(path)}}
        with refused(BAD_CONFIG, "runtimeConfig.CNIDeviceInfoFile", str(path), "-c0_net1", "'capabilities'"):
            node.add(**config)
        assert path.read_text() == theirs and node.owners() == {}
        node.delete(**config)


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_device_info_file_that_is_no_file(node, device_info, directory, kind):
    theirs = directory / "theirs"
    theirs.write_text("theirs")
    if kind == "link":
        device_info.symlink_to(theirs)
    else:
        os.mkfifo(device_info)
    with refused(5, str(device_info), "not a regular file", "remove it"):
        node.add(runtimeConfig={"CNIDeviceInfoFile": str(device_info)})
    assert theirs.read_text() == "theirs" and node.owners() == {}


def test_status(own_node):
    assert own_node.call("STATUS") is None
    own_node.datapath.stop()
    with refused(NOT_AVAILABLE, "datapath.sock", "vdpa-datapath"):
        own_node.call("STATUS")


def test_status_of_a_daemon_that_can_attach_nothing(own_node):
    first = own_node.datapath
    first.stub.Drain(rpc.datapath.DrainRequest(), timeout=20)
    with refused(NOT_AVAILABLE, "the node was drained of vDPA devices"):
        own_node.call("STATUS")
    with first.restarted() as own_node.datapath:
        with refused(NOT_AVAILABLE, "vdpa-device-plugin has not reported this node's devices yet"):
            own_node.call("STATUS")
        own_node.datapath.offer(0)
        assert own_node.call("STATUS") is None


def test_status_of_a_daemon_that_hangs(own_node):
    suspend(own_node.datapath.pid)
    try:
        begin = time.monotonic()
        with refused(NOT_AVAILABLE, "datapath.sock", "did not answer"):
            own_node.call("STATUS")
        assert time.monotonic() - begin < 2
    finally:
        own_node.datapath.process.send_signal(signal.SIGCONT)
    assert own_node.call("STATUS") is None


def test_without_the_daemon(own_node):
    result = own_node.add()
    own_node.datapath.stop()
    with refused(TRY_AGAIN, "datapath.sock", "is the vdpa-datapath DaemonSet running"):
        own_node.add(container="c1", device="nic-1")
    with refused(TRY_AGAIN, "datapath.sock"):
        own_node.check(result)
    with refused(TRY_AGAIN, "datapath.sock"):
        own_node.collect([])
    done = run("DEL", own_node.config())
    assert done.returncode == 0 and "datapath.sock" in done.stderr.decode()
    with own_node.datapath.restarted() as datapath:
        own_node.datapath = datapath.offer().wait_healthy()
        own_node.check(result)
        own_node.delete()
        assert own_node.owners() == {}


@contextlib.contextmanager
def full_backlog(path):
    """A listener whose backlog is full."""
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as queued:
        listener.bind(str(path))
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = queued.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        yield


def test_a_socket_without_room_for_a_connection(node, directory):
    path = directory / "datapath.sock"
    with full_backlog(path):
        begin = time.monotonic()
        with refused(TRY_AGAIN, f"cannot connect to {path}", "is the vdpa-datapath DaemonSet"):
            node.add(datapathSocket=str(path))
        took = time.monotonic() - begin
        assert 1 <= took < 5, "the time that a busy datapath may need to accept"
        node.delete(datapathSocket=str(path))


def test_a_socket_that_speaks_too_little(node, directory):
    """An occasional byte of SETTINGS is not an answer."""
    path = directory / "datapath.sock"
    with socket.socket(socket.AF_UNIX) as listener, futures.ThreadPoolExecutor(1) as pool:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(20)

        def dribble():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(BrokenPipeError):
                for byte in b"\0\0\x30\4" + bytes(53):   # a frame of eight settings
                    connection.sendall(bytes([byte]))
                    time.sleep(0.25)
        dribbling = pool.submit(dribble)
        begin = time.monotonic()
        with refused(TRY_AGAIN, str(path), "no HTTP/2 SETTINGS"):
            node.add(datapathSocket=str(path))
        assert time.monotonic() - begin < 5
        dribbling.result(20)


def test_sockets_outside_of_their_place(node, directory):
    path = node.base["datapathSocket"]
    for roots in None, "", str(directory):
        with refused(BAD_CONFIG, f"datapathSocket '{path}'", "below /run/vdpa", "VDPA_CNI_ROOTS"):
            call("ADD", node.config(), {"VDPA_CNI_ROOTS": roots})
    assert node.owners() == {}
    (directory / "datapath.sock").symlink_to(path)
    with refused(BAD_CONFIG, "datapath.sock", str(directory)):
        call("ADD", node.config(datapathSocket=str(directory / "datapath.sock")), {"VDPA_CNI_ROOTS": str(directory)})
    assert call("ADD", node.config(), {"VDPA_CNI_ROOTS": str(node.datapath.run_dir)})
    done = run("DEL", node.config(), {"VDPA_CNI_ROOTS": None})
    assert done.returncode == 0 and f"datapathSocket '{path}'" in done.stderr.decode()
    node.delete()


def test_sockets_of_devices_and_engines(node):
    """They are below VDPA_CNI_ROOTS, as the datapath's own socket is."""
    node.add()
    run_dir = node.datapath.run_dir
    sockets = [path for path in run_dir.rglob("*") if path.is_socket() and path != run_dir / "datapath.sock"]
    assert node.datapath.socket() in sockets and len(sockets) >= 4
    for path in sockets:
        with refused(BAD_CONFIG, f"datapathSocket '{path}'", "datapath.sock below"):
            node.add(device="nic-1", interface="net2", datapathSocket=str(path))


def test_something_else_listens(node, directory):
    path = directory / "datapath.sock"
    with socket.socket(socket.AF_UNIX) as listener, futures.ThreadPoolExecutor(1) as pool:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(20)

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        answering = pool.submit(answer)
        with refused(TRY_AGAIN, str(path), "did not answer"):
            node.add(datapathSocket=str(path))
        answering.result(20)
