"""IPAM by other plugins: those of the CNI project, and small scripts that fail in every way a plugin can."""

import json
import time
from concurrent import futures

import pytest

from cni import (daemon, device_info, node, own_node,  # noqa: F401 (fixtures)
                 ATTACHED_ALREADY, BAD_CONFIG, DEBIAN_PLUGINS, DIFFERS, INCOMPATIBLE, IPAM_FAILED, NETNS, NEW_PLUGINS,
                 NOT_AVAILABLE, PROGRAM, TRY_AGAIN, UNKNOWN_CONTAINER, VERSIONS, Node, refused)
from datapath import BUILD, WORKER_DIRS, Datapath, network_namespace, read_json
from support import wait_until

GENERIC = 999  # the containernetworking plugins' code for errors without one of their own
ADDRESS = '{"ips": [{"address": "192.0.2.9/24"}]}'


class HostLocal:
    """A network with host-local, its leases below `directory`."""

    def __init__(self, directory, netns, **keys):
        self.directory = directory / "leases"
        self.config = {"path": NEW_PLUGINS, "netns": netns, "ipam": {
            "type": "host-local", "dataDir": str(self.directory), "ranges": [[{"subnet": "192.0.2.0/24"}],
                                                                             [{"subnet": "2001:db8::/64"}]],
            "routes": [{"dst": "198.51.100.0/24", "gw": "192.0.2.1"}], **keys}}

    def leases(self, network="fast"):
        """The leases, as address to container and interface."""
        folder = self.directory / network
        return {path.name: path.read_text().split() for path in folder.iterdir()
                if path.name[0].isdigit() and path.name != "lock"} if folder.exists() else {}


@pytest.fixture(scope="module")
def netns():
    """The CNI project's plugins refuse the network namespace in which they run."""
    with network_namespace() as path:
        yield path


@pytest.fixture
def host_local(directory, netns):
    return HostLocal(directory, netns)


class Script:
    """An IPAM plugin of a few lines of shell, which logs its calls."""

    def __init__(self, directory, body):
        self.directory = directory / "plugins"
        self.directory.mkdir(exist_ok=True)
        self.log = directory / "calls"
        program = self.directory / "scripted"
        program.write_text(f'#!/bin/sh\necho "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME" >> {self.log}\n{body}\n')
        program.chmod(0o755)
        self.config = {"ipam": {"type": "scripted"}, "path": self.directory}

    def calls(self):
        return [line.split()[0] for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def scripted(directory):
    return lambda body: Script(directory, body)


def nothing_left(node):
    return node.owners() == {} and list(node.datapath.path().iterdir()) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_host_local(node, host_local, version):
    config = {**host_local.config, "version": version}
    result = node.add(**config)
    ips = [{"address": "192.0.2.2/24", "gateway": "192.0.2.1", "interface": 0},
           {"address": "2001:db8::2/64", "gateway": "2001:db8::1", "interface": 0}]
    if version < "1.0.0":
        ips[0]["version"], ips[1]["version"] = "4", "6"
    assert result["ips"] == ips and result["cniVersion"] == version
    assert result["routes"] == [{"dst": "198.51.100.0/24", "gw": "192.0.2.1"}]
    assert read_json(node.datapath.path(file="device.json"))["ips"] == ["192.0.2.2/24", "2001:db8::2/64"]
    assert set(host_local.leases()) == {"192.0.2.2", "2001:db8::2"}
    if version >= "0.4.0":
        node.check(result, **config)
        with refused(DIFFERS, "192.0.2.2/24", "192.0.2.77/24"):
            node.check({**result, "ips": [{**ips[0], "address": "192.0.2.77/24"}, ips[1]]}, **config)
    node.delete(**config)
    assert host_local.leases() == {} and nothing_left(node)
    node.delete(**config)


def test_addresses_belong_to_our_interface_of_a_chain(node, host_local):
    before = {"interfaces": [{"name": "br0"}], "ips": [{"address": "203.0.113.5/24", "interface": 0}],
              "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["203.0.113.53"]}}
    result = node.add(prevResult=before, **host_local.config)
    assert [(ip["address"], ip["interface"]) for ip in result["ips"]] == [
        ("203.0.113.5/24", 0), ("192.0.2.2/24", 1), ("2001:db8::2/64", 1)]
    assert [route["dst"] for route in result["routes"]] == ["0.0.0.0/0", "198.51.100.0/24"]
    assert result["dns"] == before["dns"]
    node.check(result, **host_local.config)


def test_dns_of_the_ipam_plugin(node, directory, netns):
    (directory / "resolv.conf").write_text("nameserver 192.0.2.53\nsearch shop.example\n")
    result = node.add(**HostLocal(directory, netns, resolvConf=str(directory / "resolv.conf")).config)
    assert result["dns"] == {"nameservers": ["192.0.2.53"], "search": ["shop.example"]}


def test_addresses_go_back_when_attach_fails(own_node, host_local):
    with refused(BAD_CONFIG, "min_tx_rate"):
        own_node.add(min_tx_rate=1, **host_local.config)
    with refused(BAD_CONFIG, "nic-9"):
        own_node.add(device="nic-9", **host_local.config)
    own_node.datapath.stop()
    with refused(TRY_AGAIN, "datapath.sock"):
        own_node.add(**host_local.config)
    assert host_local.leases() == {}


def test_a_second_add_keeps_the_addresses_of_the_first(node, host_local):
    result = node.add(**host_local.config)
    leases = host_local.leases()
    for device in "nic-0", "nic-1":
        with refused(ATTACHED_ALREADY, "c0", "net1"):
            node.add(device=device, **host_local.config)
    assert host_local.leases() == leases
    node.check(result, **host_local.config)


def test_del_without_the_daemon_gives_the_addresses_back(own_node, host_local):
    own_node.add(**host_local.config)
    own_node.datapath.stop()
    own_node.delete(**host_local.config)
    assert host_local.leases() == {}


def test_check_of_a_lost_lease(node, host_local):
    result = node.add(**host_local.config)
    for address in host_local.leases():
        (host_local.directory / "fast" / address).unlink()
    with refused(GENERIC, "host-local", "c0"):
        node.check(result, **host_local.config)


def test_order_of_the_calls(node, scripted):
    ipam = scripted(f"cat > /dev/null; [ $CNI_COMMAND = ADD ] && echo '{ADDRESS}' || true")
    result = node.add(**ipam.config)
    node.check(result, **ipam.config)
    node.delete(**ipam.config)
    assert ipam.calls() == ["ADD", "CHECK", "DEL"]
    with refused(BAD_CONFIG, "min_tx_rate"):
        node.add(min_tx_rate=1, **ipam.config)
    with refused(BAD_CONFIG, "nic-9"):
        node.add(device="nic-9", **ipam.config)
    assert ipam.calls()[3:] == [], "a refused attachment has no addresses"
    assert node.call("STATUS", **ipam.config) is None
    node.add(container="c1", **ipam.config)
    assert node.collect([], **ipam.config) is None
    assert ipam.calls()[3:] == ["STATUS", "ADD", "DEL", "GC"]
    assert "DEL c1 net1" in ipam.log.read_text()


def test_the_device_is_the_pods_while_ipam_works(node, scripted, directory, device_info):
    """The dhcp plugin uses the interface; and a failure is undone in reverse order."""
    socket = node.datapath.socket()
    ipam = scripted(f"""cat > /dev/null
for i in $(seq 500); do [ -S {socket} ] && break; sleep 0.01; done   # its worker may be starting still
[ -S {socket} ] && echo "$CNI_COMMAND" >> {directory}/attached
[ $CNI_COMMAND != ADD ] || echo '{ADDRESS}'""")

    def attached():
        return (directory / "attached").read_text().split()
    node.add(**ipam.config)
    node.delete(**ipam.config)
    assert attached() == ["ADD", "DEL"]
    device_info.mkdir()
    with refused(5, str(device_info)):
        node.add(runtimeConfig={"CNIDeviceInfoFile": str(device_info)}, **ipam.config)
    assert attached()[2:] == ["ADD", "DEL"] and ipam.calls()[2:] == ["ADD", "DEL"]
    assert nothing_left(node)


def test_ipam_works_while_the_worker_starts(directory, scripted):
    """Neither waits for the other, but the answer for both: here the worker can't start before IPAM has been called."""
    ipam = scripted(f"cat > /dev/null\ntouch {directory}/asked\necho '{ADDRESS}'")
    programs = directory / "programs"
    programs.mkdir()
    worker = programs / "vdpa-worker"
    worker.write_text(f'#!/bin/sh\n[ "$1" = --version ] || until [ -e {directory}/asked ]; do sleep 0.01; done\n'
                      f'exec {BUILD}/deviceplugin/datapath/worker/vdpa-worker "$@"\n')
    worker.chmod(0o755)
    with Datapath(directory, worker_dirs=f"{programs}:{WORKER_DIRS}") as datapath:
        node = Node(datapath.wait_serving().offer().wait_healthy())
        result = node.add(**ipam.config)
        assert datapath.socket().is_socket() and result["ips"][0]["address"] == "192.0.2.9/24"
        assert read_json(datapath.path(file="device.json"))["ips"] == ["192.0.2.9/24"]
        node.delete(**ipam.config)

        worker.write_text("#!/bin/sh\nexit 3\n")  # including IPAM's time
        with refused(TRY_AGAIN, "vdpa-worker of nic-0 is not running: exited with status 3"):
            node.add(**ipam.config)
        assert ipam.calls() == ["ADD", "DEL", "ADD", "DEL"] and nothing_left(node)


def test_a_restart_of_the_datapath_while_ipam_works(own_node, scripted, directory):
    ipam = scripted(f"""cat > /dev/null
touch {directory}/asked
[ $CNI_COMMAND != ADD ] || until [ -e {directory}/go ]; do sleep 0.01; done
echo '{ADDRESS}'""")
    with futures.ThreadPoolExecutor() as pool:
        adding = pool.submit(own_node.add, **ipam.config)
        wait_until((directory / "asked").exists, "IPAM to be called")
        with own_node.datapath.restarted() as again:
            (directory / "go").touch()
            assert adding.result(timeout=30)["ips"][0]["address"] == "192.0.2.9/24"
            assert again.attachment().ips == ["192.0.2.9/24"] and again.socket().is_socket()
            own_node.delete(**ipam.config)


def test_a_del_while_ipam_works(node, scripted, directory):
    """The ADD notices it before it answers, and releases the addresses, which the DEL could not know of."""
    config = directory / "config"
    ipam = scripted(f"""cat > /dev/null
[ $CNI_COMMAND = ADD ] || exit 0
CNI_COMMAND=DEL {PROGRAM} < {config} >&2
echo '{ADDRESS}'""")
    config.write_text(json.dumps(node.config()))
    with refused(UNKNOWN_CONTAINER, "c0", "net1", "detached during its setup"):
        node.add(**ipam.config)
    assert ipam.calls() == ["ADD", "DEL"] and nothing_left(node)


def test_dhcp_needs_an_interface(node, directory):
    plugins = directory / "plugins"
    plugins.mkdir()
    (plugins / "dhcp").write_text(f"#!/bin/sh\ntouch {directory}/called\n")
    (plugins / "dhcp").chmod(0o755)
    with refused(BAD_CONFIG, "ipam.type 'dhcp'", "nic-0", "/run/vdpa/nic-0/vhost.sock", "attach: virtio-vdpa"):
        node.add(ipam={"type": "dhcp"}, path=plugins)
    assert nothing_left(node) and not (directory / "called").exists()


@pytest.mark.parametrize("version", VERSIONS)
def test_static_addresses_that_the_pod_asks_for(node, netns, version):
    config = {"path": NEW_PLUGINS, "netns": netns, "version": version,
              "runtimeConfig": {"ips": ["192.0.2.50/24", "2001:db8::50/64"]},
              "ipam": {"type": "static", "routes": [{"dst": "198.51.100.0/24", "gw": "192.0.2.1"}]}}
    result = node.add(**config)
    assert [ip["address"] for ip in result["ips"]] == ["192.0.2.50/24", "2001:db8::50/64"]
    assert read_json(node.datapath.path(file="device.json"))["ips"] == ["192.0.2.50/24", "2001:db8::50/64"]
    assert list(node.datapath.attachment().ips) == ["192.0.2.50/24", "2001:db8::50/64"]
    if version >= "0.4.0":
        node.check(result, **config)
        with refused(DIFFERS, "192.0.2.51/24"):
            node.check({**result, "ips": [{"address": "192.0.2.51/24", "interface": 0}]}, **config)
    node.delete(**config)
    assert nothing_left(node)


def test_status_and_garbage_collection_of_host_local(node, host_local):
    """An unlisted attachment releases its device and its addresses, though host-local has no GC."""
    node.add(**host_local.config)
    node.add(container="c1", device="nic-1", **host_local.config)
    assert len(host_local.leases()) == 4
    assert node.call("STATUS", **host_local.config) is None
    node.collect([("c1", "net1")], **host_local.config)
    assert set(node.owners()) == {"nic-1"}
    assert {container for container, _ in host_local.leases().values()} == {"c1"}


def test_status_of_an_ipam_plugin_that_is_not_well(node, scripted):
    ipam = scripted("echo '{\"code\": 50, \"msg\": \"no range is left\"}'; exit 1")
    with refused(NOT_AVAILABLE, "scripted", "no range is left"):
        node.call("STATUS", **ipam.config)


def test_addresses_stay_over_a_restart_of_the_daemon(own_node, host_local):
    result = own_node.add(**host_local.config)
    own_node.datapath.process.kill()
    own_node.datapath.process.wait()
    with own_node.datapath.restarted() as datapath:
        own_node.datapath = datapath.offer()
        assert list(datapath.attachment().ips) == ["192.0.2.2/24", "2001:db8::2/64"]
        own_node.check(result, **host_local.config)
        own_node.delete(**host_local.config)


def test_a_del_whose_ipam_plugin_hangs_ends_all_the_same(node, scripted):
    ipam = scripted(f"cat > /dev/null; [ $CNI_COMMAND = ADD ] && echo '{ADDRESS}' || exec sleep 1000")
    node.add(**ipam.config)
    begin = time.monotonic()
    with refused(TRY_AGAIN, "scripted", "did not exit in time"):
        node.call("DEL", **ipam.config)
    assert time.monotonic() - begin < 25
    assert nothing_left(node)


def test_what_the_plugin_gets(node, scripted, directory):
    ipam = scripted(f"env > {directory}/environment; cat > {directory}/config; echo '{ADDRESS}'")
    node.add(arguments="K8S_POD_NAME=till", padding="x" * 300_000, **ipam.config)
    variables = dict(line.split("=", 1) for line in (directory / "environment").read_text().splitlines())
    assert {name: variables[name] for name in variables if name.startswith("CNI_")} == {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c0", "CNI_IFNAME": "net1", "CNI_NETNS": NETNS,
        "CNI_ARGS": "K8S_POD_NAME=till", "CNI_PATH": str(ipam.directory)}
    assert json.loads((directory / "config").read_text()) == node.config(
        padding="x" * 300_000, ipam=ipam.config["ipam"]), "more than a pipe holds"


@pytest.mark.parametrize("body, code, words", [
    ("exit 3", IPAM_FAILED, ("status 3",)),
    ("echo oops; exit 1", IPAM_FAILED, ("status 1", "oops")),
    ("kill -9 $$", IPAM_FAILED, ("signal 9",)),
    ("true", IPAM_FAILED, ("no address",)),
    ("echo '{}'", IPAM_FAILED, ("no address",)),
    ("echo nonsense", IPAM_FAILED, ("ADD", "not JSON", "nonsense")),
    ("echo '[]'", IPAM_FAILED, ("not a JSON object",)),
    ("head -c 100000 /dev/zero | tr '\\0' '['", IPAM_FAILED, ("64 levels",)),
    ("head -c 2000000 /dev/zero", IPAM_FAILED, ("1048576 bytes",)),
    ("echo '{\"ips\": 7}'", IPAM_FAILED, ("ips: expected a list",)),
    ("echo '{\"ips\": [7]}'", IPAM_FAILED, ("ips[0]: expected an object",)),
    ("echo '{\"ips\": [{\"address\": 7}]}'", IPAM_FAILED, ("ips[0].address: expected a string",)),
    ("echo '{\"ips\": [{\"address\": \"192.0.2.1\"}]}'", IPAM_FAILED, ("192.0.2.1", "prefix length")),
    ("echo '{\"ips\": [{\"address\": \"192.0.2.1/33\"}]}'", IPAM_FAILED, ("192.0.2.1/33", "prefix length")),
    ("echo '{\"ips\": [{\"address\": \"192.0.2.1/24\"}], \"routes\": 7}'", IPAM_FAILED, ("routes: expected a list",)),
    ("echo '{\"ips\": [{\"address\": \"192.0.2.1/24\"}], \"dns\": 7}'", IPAM_FAILED, ("dns: expected an object",)),
    ("echo '{\"code\": 11, \"msg\": \"range is full\", \"details\": \"of fast\"}'; exit 1", TRY_AGAIN,
     ("range is full", "of fast")),
    ("echo '{\"code\": 0, \"msg\": \"no code\"}'; exit 1", IPAM_FAILED, ("status 1", "no code")),
    ("echo '{\"code\": \"x\", \"msg\": 7}'; exit 1", IPAM_FAILED, ("status 1",)),
    ("exec < /dev/null; echo '{\"code\": 7, \"msg\": \"did not read\"}'; exit 1", BAD_CONFIG, ("did not read",))])
def test_plugins_that_fail(node, scripted, body, code, words):
    ipam = scripted(f"[ $CNI_COMMAND = ADD ] || exit 0\n{body}")
    with refused(code, "scripted", *words):
        node.add(padding="x" * 300_000, **ipam.config)
    assert ipam.calls() == ["ADD", "DEL"], "a plugin that failed half-way may have reserved an address"
    assert nothing_left(node)


def test_a_del_that_fails(node, scripted):
    ipam = scripted(f"[ $CNI_COMMAND = ADD ] && echo '{ADDRESS}' && exit 0\n"
                    "echo '{\"code\": 5, \"msg\": \"disk is full\"}'; exit 1")
    node.add(**ipam.config)
    with refused(5, "scripted", "disk is full"):
        node.call("DEL", **ipam.config)
    assert nothing_left(node), "the device is released all the same"


def test_a_plugin_that_is_missing(node, directory):
    config = {"ipam": {"type": "missing"}, "path": f"{directory}:/nonexistent"}
    with refused(BAD_CONFIG, "missing", f"{directory}:/nonexistent", "install it"):
        node.add(**config)
    (directory / "missing").mkdir()
    with refused(BAD_CONFIG, "missing", "install it"):
        node.add(**config)
    assert nothing_left(node)
    node.add()
    node.delete(**config)
    assert nothing_left(node), "it has nothing to release, and the pod must be able to end"


def test_host_local_that_is_older_than_the_configuration(node, host_local):
    with refused(INCOMPATIBLE, "host-local"):
        node.add(**{**host_local.config, "path": DEBIAN_PLUGINS})
    assert nothing_left(node) and host_local.leases() == {}
