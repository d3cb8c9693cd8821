"""The CNI protocol without a daemon: variables, versions, malformed configurations, and the types of keys."""

import contextlib
import json
import os
import pathlib
import subprocess

import pytest

import cni
from cni import BAD_CONFIG, BAD_ENVIRONMENT, INCOMPATIBLE, NOT_JSON, VERSIONS, call, refused
from support import SANITIZED

CONFIG = {"cniVersion": "1.1.0", "name": "fast", "type": "vdpa", "deviceID": "nic-0",
          "datapathSocket": "/nonexistent/datapath.sock"}

NEEDED = {"ADD": {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}, "DEL": {"CNI_CONTAINERID", "CNI_IFNAME"},
          "CHECK": {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}, "GC": {"CNI_PATH"},
          "STATUS": set(), "VERSION": set()}
WRONG = [("CNI_CONTAINERID", "../c0"), ("CNI_CONTAINERID", "-c0"), ("CNI_IFNAME", "sixteen-bytes-xx"),
         ("CNI_IFNAME", "."), ("CNI_IFNAME", ".."), ("CNI_IFNAME", "a/b"), ("CNI_IFNAME", "a:b"), ("CNI_IFNAME", "a b"),
         ("CNI_NETNS", "/nonexistent/netns"), ("CNI_NETNS", "relative")]


def complaints(command, variables):
    """The message if the environment is refused, else nothing; later failures don't matter here."""
    try:
        call(command, {**CONFIG, "cniVersion": "1.1.0"}, variables)
    except cni.Refused as error:
        if error.code == BAD_ENVIRONMENT:
            return error.message
    return ""


@pytest.mark.parametrize("command", NEEDED)
@pytest.mark.parametrize("missing", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"])
def test_missing_variable(command, missing):
    for nothing in (None, ""):
        message = complaints(command, {missing: nothing})
        if missing in NEEDED[command]:
            assert missing in message
        else:
            assert message == ""


@pytest.mark.parametrize("command", NEEDED)
def test_every_missing_variable_is_named(command):
    message = complaints(command, dict.fromkeys(cni.VARIABLES))
    assert set(message.replace(",", "").split()) & set(cni.VARIABLES) == NEEDED[command]


@pytest.mark.parametrize("command", NEEDED)
@pytest.mark.parametrize("variable, value", WRONG)
def test_wrong_variable(command, variable, value):
    message = complaints(command, {variable: value})
    if variable in NEEDED[command]:
        assert variable in message and value in message
    else:
        assert message == "", "a variable that the command does not use"


@pytest.mark.parametrize("command", NEEDED)
def test_arguments_that_are_none(command):
    message = complaints(command, {"CNI_ARGS": "IgnoreUnknown=1;nonsense"})
    assert ("CNI_ARGS" in message and "nonsense" in message) == (command in ("ADD", "CHECK"))


@pytest.mark.parametrize("version", VERSIONS)
def test_errors_of_the_environment_have_the_configurations_version(version):
    with refused(BAD_ENVIRONMENT, "CNI_COMMAND", "ADDD"):
        call("ADDD", {**CONFIG, "cniVersion": version})
    with refused(BAD_ENVIRONMENT, "CNI_COMMAND"):
        call(None, {**CONFIG, "cniVersion": version})
    with refused(BAD_ENVIRONMENT, "CNI_COMMAND"):
        call(None, "not JSON", answers_in="1.1.0")


@pytest.mark.parametrize("config", ["", "{}", "not JSON", "[]", json.dumps({"cniVersion": "7.0.0"})] +
                         [json.dumps({"cniVersion": version}) for version in VERSIONS])
def test_version(config):
    asked = json.loads(config).get("cniVersion") if config.startswith("{") else None
    assert call("VERSION", config, dict.fromkeys(cni.VARIABLES)) == {
        "cniVersion": asked if asked in VERSIONS else "1.1.0", "supportedVersions": VERSIONS}


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "1.1.1", "2.0.0", "1.1", "", "latest", None])
def test_unknown_versions(command, version):
    config = {key: value for key, value in {**CONFIG, "cniVersion": version}.items() if value is not None}
    with refused(INCOMPATIBLE, "cniVersion", "0.1.0" if version is None else version, *VERSIONS):
        call(command, config)


@pytest.mark.parametrize("command, since", [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")])
def test_commands_newer_than_the_configuration(command, since):
    for version in VERSIONS[:VERSIONS.index(since)]:
        with refused(INCOMPATIBLE, command, since, version):
            call(command, {**CONFIG, "cniVersion": version})


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize("text", ["", " ", "not JSON", "{", '{"a":', "[]", '"text"', "null", "7", b"\xff\xfe",
                                  '{"a": "\x01"}', b'{"name": "\xff"}', json.dumps(CONFIG) + "{}"])
def test_not_a_configuration(command, text):
    with refused(NOT_JSON, "network configuration"):
        call(command, text)


@pytest.mark.parametrize("command", ["ADD", "DEL", "GC", "STATUS", "VERSION"])
@pytest.mark.parametrize("levels", [65, 300_000])
def test_deep_nesting(command, levels):
    for key in ("deviceID", "cniVersion", "unknown"):
        text = json.dumps({**CONFIG, key: "@"}).replace('"@"', "[" * (levels - 1) + "]" * (levels - 1))
        if command == "VERSION":
            assert call(command, text)["cniVersion"] == "1.1.0"
        else:
            with refused(NOT_JSON, "64 levels"):
                call(command, text, answers_in="1.1.0")


def test_nesting_that_is_allowed():
    text = json.dumps({**CONFIG, "deviceID": "@"}).replace('"@"', "[" * 63 + "]" * 63)
    with refused(BAD_CONFIG, "deviceID", "a list"):
        call("ADD", text)


def test_huge_input():
    with refused(NOT_JSON, "1048576 bytes"):
        call("ADD", json.dumps({**CONFIG, "padding": "x" * (1 << 20)}))
    with refused(BAD_CONFIG, "deviceID"):
        call("ADD", {**CONFIG, "deviceID": ["x" * 1_000_000]})
    with refused(NOT_JSON):
        call("ADD", "[" * 1_000_000)


# Every key with the words that an error must contain, and values of wrong types.
STRINGS = ["name", "deviceID", "pciBusID", "mac", "vlanProto", "spoofchk", "trust", "link_state", "datapathSocket",
           "type", "logLevel", "logFile", "cniVersion", "vlanTrunk"]
NUMBERS = ["vlan", "vlanQoS", "min_tx_rate", "max_tx_rate", "mtu", "max_rx_rate", "burst"]
NESTED = ["runtimeConfig.mac", "runtimeConfig.deviceID", "runtimeConfig.pciBusID", "runtimeConfig.CNIDeviceInfoFile",
          "args.cni.mac", "ipam.type"]
OBJECTS = ["dns", "capabilities", "runtimeConfig", "args", "args.cni", "ipam", "prevResult"]


def with_key(path, value):
    for key in reversed(path.split(".")):
        value = {key: value}
    return {**CONFIG, **value}


@pytest.mark.parametrize("key, values, expected", [
    *[(key, [1, True, ["x"], {"a": "b"}], "a string") for key in STRINGS + NESTED],
    *[(key, ["1", 1.5, True, [1], {"a": 1}, -1, 2 ** 33, 2 ** 63, 2 ** 64 - 1], "a whole number") for key in NUMBERS],
    *[(key, ["x", 1, True, [{}]], "an object") for key in OBJECTS],
    ("runtimeConfig.ips", ["192.0.2.1/24", 1, True, {"a": 1}], "a list")])
def test_wrong_types_name_the_key(key, values, expected):
    for value in values:
        with refused(BAD_CONFIG, f"{key}: expected {expected}"):
            call("ADD", with_key(key, value), answers_in="1.1.0")


@pytest.mark.parametrize("key, value", [
    ("name", ""), ("name", "-x"), ("name", "a/b"), ("logLevel", "loud"), ("vlan", 4095), ("vlanQoS", 8),
    ("vlanProto", "qinq"), ("spoofchk", "yes"), ("trust", "true"), ("link_state", "up"), ("mtu", 67),
    ("vlanTrunk", "0-5"), ("vlanTrunk", "100-4095"), ("vlanTrunk", "5-4"), ("vlanTrunk", "100, 200"), ("vlanTrunk", "all"),
    ("max_rx_rate", 1000001), ("burst", 1048577),
    ("ipam.type", ""), ("ipam.type", "vdpa"), ("ipam.type", "../x"), ("runtimeConfig.CNIDeviceInfoFile", "relative"),
    ("runtimeConfig.CNIDeviceInfoFile", "/etc/passwd"), ("logFile", "/etc/cron.d/x"), ("logFile", "cni.log"),
    ("logFile", "/var/log/../../etc/x"), ("runtimeConfig.CNIDeviceInfoFile", "/var/run/k8s.cni.cncf.io/devinfo/cni/.."),
    ("logFile", "/var/log/"),
    ("mac", "02:00:00:00:00"), ("mac", "01:00:00:00:00:01"), ("mac", "00:00:00:00:00:00"), ("mac", "02-00-00-00-00-01"),
    ("runtimeConfig.mac", "x"), ("args.cni.mac", "x"), ("datapathSocket", "/" + "x" * 107),
    ("datapathSocket", "/etc/datapath.sock"), ("datapathSocket", "/nonexistent/../etc/datapath.sock"),
    ("datapathSocket", "datapath.sock"), ("datapathSocket", "/nonexistent/vhost.sock"),
    ("runtimeConfig.CNIDeviceInfoFile", "/var/run/k8s.cni.cncf.io/devinfo/cni/shop-fast-c1_net1")])
def test_wrong_values_name_the_key(key, value):
    with refused(BAD_CONFIG, key, str(value) if len(str(value)) < 107 else "107"):
        call("ADD", with_key(key, value))


def test_wrong_mac_in_the_arguments():
    with refused(BAD_CONFIG, "CNI_ARGS MAC", "nonsense"):
        call("ADD", CONFIG, {"CNI_ARGS": "MAC=nonsense"})


def test_settings_that_need_a_vlan():
    for keys in ({"vlanQoS": 1}, {"vlanQoS": 1, "vlan": 0}, {"vlanProto": "802.1ad"},
                 {"vlanProto": "802.1AD", "vlan": 0}):
        with refused(BAD_CONFIG, next(iter(keys)), "vlan that is not 0"):
            call("ADD", {**CONFIG, **keys})
    with refused(BAD_CONFIG, "min_tx_rate 5", "max_tx_rate 4"):
        call("ADD", {**CONFIG, "min_tx_rate": 5, "max_tx_rate": 4})


def test_settings_that_exclude_each_other():
    with refused(BAD_CONFIG, "vlan 105 ", "vlanTrunk 100-110,200", "native VLAN"):
        call("ADD", {**CONFIG, "vlan": 105, "vlanTrunk": "200,100-110"})
    for keys in ({}, {"max_tx_rate": 0}, {"max_rx_rate": 0}):
        with refused(BAD_CONFIG, "burst 64", "max_tx_rate", "max_rx_rate"):
            call("ADD", {**CONFIG, "burst": 64, **keys})


def test_no_device():
    for command in ("ADD", "CHECK"):
        with refused(BAD_CONFIG, "no device ID", "k8s.v1.cni.cncf.io/resourceName", "init container"):
            call(command, {key: value for key, value in CONFIG.items() if key != "deviceID"})


@pytest.mark.parametrize("first, second", [("deviceID", "runtimeConfig.deviceID"), ("deviceID", "pciBusID"),
                                           ("deviceID", "runtimeConfig.pciBusID"),
                                           ("runtimeConfig.deviceID", "pciBusID"),
                                           ("pciBusID", "runtimeConfig.pciBusID")])
def test_device_ids_that_differ(first, second):
    config = {**CONFIG, "runtimeConfig": {}}
    del config["deviceID"]
    for path, device in ((first, "nic-1"), (second, "nic-2")):
        *parent, key = path.split(".")
        (config["runtimeConfig"] if parent else config)[key] = device
    with refused(BAD_CONFIG, f"{first} 'nic-1' and {second} 'nic-2' differ"):
        call("ADD", config)


def test_garbage_collection_needs_a_list():
    with refused(BAD_CONFIG, "cni.dev/valid-attachments"):
        call("GC", CONFIG)
    for value, words in [("x", "a list"), ({}, "a list"), (["x"], "[0]: expected an object"),
                         ([{"ifname": "net1"}], "[0].containerID is missing"),
                         ([{"containerID": "c0", "ifname": "net1"}, {"containerID": "c1"}], "[1].ifname is missing"),
                         ([{"containerID": 7}], "[0].containerID: expected a string")]:
        with refused(BAD_CONFIG, "cni.dev/valid-attachments", words):
            call("GC", {**CONFIG, "cni.dev/valid-attachments": value})


@pytest.mark.parametrize("level", ["panic", "fatal", "error", "warning", "warn", "info", "debug", "trace", "INFO"])
def test_log_levels(level):
    with refused(cni.NOT_AVAILABLE, "datapath.sock"):
        call("STATUS", {**CONFIG, "logLevel": level})


def test_log_file():
    with cni.name_in("/var/log") as log:
        done = cni.run("DEL", {**CONFIG, "logFile": str(log)})
        assert done.returncode == 0 and done.stderr == b""
        assert "datapath.sock" in log.read_text(), "the reason why DEL released nothing"
    done = cni.run("DEL", {**CONFIG, "logFile": f"{log}/cni.log"})
    assert done.returncode == 0
    assert "logFile" in done.stderr.decode() and "No such file" in done.stderr.decode()


@pytest.mark.parametrize("kind", ["link", "link in the path", "dangling link", "pipe", "pipe with a reader",
                                  "directory", "from the root"])
def test_a_log_file_that_is_none(directory, kind):
    theirs = directory / "theirs"
    theirs.write_text("theirs")
    with cni.name_in("/var/log") as log, contextlib.ExitStack() as open_files:
        path = log
        if kind == "link":
            log.symlink_to(theirs)
        elif kind == "link in the path":
            log.symlink_to(directory)
            path = log / "theirs"
        elif kind == "dangling link":
            log.symlink_to(directory / "new")
        elif kind == "directory":
            log.mkdir()
        elif kind == "from the root":
            path = f"/var/log/{theirs}"
        else:
            os.mkfifo(log)
            if kind == "pipe with a reader":
                open_files.callback(os.close, os.open(log, os.O_RDONLY | os.O_NONBLOCK))
        done = cni.run("DEL", {**CONFIG, "logFile": str(path)}, timeout=20)
        assert (done.returncode, done.stdout) == (0, b"")
        told = done.stderr.decode()
        assert f"cannot open logFile {path}" in told and "datapath.sock" in told, "both, on standard error"
        assert theirs.read_text() == "theirs" and list(directory.iterdir()) == [theirs]


def test_a_log_file_in_a_directory():
    with cni.name_in("/var/log") as folder:
        folder.mkdir()
        cni.run("DEL", {**CONFIG, "logFile": f"{folder}//./cni.log"})
        assert "datapath.sock" in (folder / "cni.log").read_text()


def test_what_is_logged_stays_within_its_line():
    with cni.name_in("/var/log") as log:
        done = cni.run("DEL", {**CONFIG, "logFile": str(log),
                               "datapathSocket": "/nonexistent/x\nssh-rsa AAAA\r\x1b[2J\x7f \u00e9/datapath.sock"})
        assert done.returncode == 0
        assert r"/x\x0assh-rsa AAAA\x0d\x1b[2J\x7f é/datapath.sock" in log.read_text()
        assert all(" vdpa-cni: " in line for line in log.read_text().split("\n") if line)


@pytest.mark.parametrize("key, value", [("logLevel", "loud"), ("logFile", 7), ("name", "-"),
                                        ("ipam.type", 7), ("ipam", 7),
                                        ("prevResult", 7), ("runtimeConfig", 7), ("vlan", "x"), ("mac", 7),
                                        ("datapathSocket", 7), ("deviceID", None)])
def test_del_is_not_refused_for_what_it_can_do_without(key, value):
    done = cni.run("DEL", with_key(key, value))
    assert (done.returncode, done.stdout) == (0, b""), done.stdout
    if key not in ("vlan", "mac", "deviceID"):
        assert key in done.stderr.decode()


def test_usage_for_people():
    for argument, words in ("--help", "CNI_COMMAND"), ("--version", "."):
        done = subprocess.run([cni.PROGRAM, argument], capture_output=True, text=True, timeout=10, check=False)
        assert done.returncode == 0 and words in done.stdout


if not SANITIZED:
    @pytest.mark.release
    def test_binary_is_static_and_small(directory):
        headers = subprocess.run(["readelf", "--program-headers", "--wide", cni.PROGRAM], capture_output=True, text=True,
                                 check=True).stdout
        assert "LOAD" in headers and "INTERP" not in headers
        stripped = pathlib.Path(directory / "vdpa")
        subprocess.run(["strip", "-o", stripped, cni.PROGRAM], check=True)
        assert stripped.stat().st_size <= 10_000_000
