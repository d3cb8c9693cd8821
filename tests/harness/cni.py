"""Runs the CNI plugin as a container runtime does: by exec, with variables, a configuration on stdin and an answer on
stdout."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import pytest

from datapath import Datapath
from support import BUILD, CACHE

PROGRAM = BUILD / "cni/vdpa"
DEBIAN_PLUGINS = pathlib.Path("/usr/lib/cni")   # of CNI 1.0.0
NEW_PLUGINS = CACHE / "cni/bin"                 # of CNI 1.1.0, and cnitool: ../cluster/cni-programs.sh
VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
NETNS = "/proc/self/ns/net"
VARIABLES = {"CNI_CONTAINERID": "c0", "CNI_NETNS": NETNS, "CNI_IFNAME": "net1", "CNI_PATH": "/nowhere",
             "VDPA_CNI_ROOTS": "/tmp:/nonexistent"}
DEVICE_INFO = "/var/run/k8s.cni.cncf.io/devinfo/cni"   # Multus's directory

# the specification's codes, and ours
INCOMPATIBLE, UNKNOWN_CONTAINER, BAD_ENVIRONMENT, IO_FAILURE, NOT_JSON, BAD_CONFIG = 1, 3, 4, 5, 6, 7
TRY_AGAIN, NOT_AVAILABLE, ATTACHED_ALREADY, DIFFERS, IPAM_FAILED = 11, 50, 100, 101, 102


@contextlib.contextmanager
def name_in(folder, ending=""):
    """A name that is free in a folder of the machine; the name is freed again afterwards. For code with fixed paths."""
    folder = pathlib.Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"vdpa-test-{os.getpid()}-{time.monotonic_ns()}{ending}"
    try:
        yield path
    finally:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        for parent in made:
            with contextlib.suppress(OSError):  # not empty: in use by others
                parent.rmdir()


@pytest.fixture
def device_info():
    """The device-info file of net1 of c0, with Multus's directory and name."""
    with name_in(DEVICE_INFO, "-c0_net1") as path:
        yield path


class Refused(Exception):
    """The plugin's error: a single JSON object on standard output."""

    def __init__(self, output, version):
        answer = json.loads(output)
        assert set(answer) <= {"cniVersion", "code", "msg", "details"}, answer
        assert answer["cniVersion"] == version, answer
        assert answer["msg"] and isinstance(answer["code"], int), answer
        assert len(output) < 8000, "an error is for people, so it is short"
        self.code, self.message, self.details = answer["code"], answer["msg"], answer.get("details", "")
        super().__init__(f"{self.code}: {self.message}; {self.details}")


def run(command, config="", variables=None, timeout=60):
    """Runs the plugin and returns the finished process. `config` may be text, bytes or an object; None unsets a variable."""
    environment = {"PATH": os.environ["PATH"], "CNI_COMMAND": command, **VARIABLES, **(variables or {})}
    if isinstance(config, (dict, list)):
        config = json.dumps(config)
    return subprocess.run([PROGRAM], input=config.encode() if isinstance(config, str) else config,
                          capture_output=True, timeout=timeout, check=False,
                          env={name: value for name, value in environment.items() if value is not None})


def call(command, config="", variables=None, answers_in=None, timeout=60):
    """Returns the answer as an object, None for an empty one. Raises Refused for an error, which must be well-formed and of
    version `answers_in` (by default the configuration's, if it is an object with a known version)."""
    done = run(command, config, variables, timeout)
    assert done.returncode in (0, 1), f"{command} ended with {done.returncode}: {done.stderr.decode()}"
    if done.returncode == 1:
        version = config.get("cniVersion") if isinstance(config, dict) else None
        raise Refused(done.stdout, answers_in or (version if version in VERSIONS else VERSIONS[-1]))
    return json.loads(done.stdout) if done.stdout else None


class refused:
    """Expects the call inside to fail with this code and a message, or its details, that contains all the words."""

    def __init__(self, code, *words):
        self.code, self.words = code, words

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        assert kind is not None, f"not refused; expected {self.code} with {self.words}"
        if not isinstance(error, Refused):
            return False
        self.error = error
        assert error.code == self.code, str(error)
        for word in self.words:
            assert word in f"{error.message}; {error.details}", f"no '{word}' in: {error}"
        return True


class Node:
    """The plugin on a node, with a running vdpa-datapath and a network's configuration."""

    def __init__(self, datapath, **config):
        self.datapath = datapath
        self.base = {"name": "fast", "type": "vdpa", "datapathSocket": str(datapath.run_dir / "datapath.sock"),
                     **config}

    def config(self, version="1.1.0", device="nic-0", **keys):
        config = {"cniVersion": version, **self.base, "deviceID": device, **keys}
        return {key: value for key, value in config.items() if value is not None}

    def call(self, command, container="c0", interface="net1", netns=NETNS, arguments=None, path=None, **config):
        return call(command, self.config(**config), {
            "CNI_CONTAINERID": container, "CNI_IFNAME": interface, "CNI_NETNS": netns, "CNI_ARGS": arguments,
            "CNI_PATH": str(path or "/nowhere")})

    def add(self, **values):
        return self.call("ADD", **values)

    def delete(self, **values):
        assert self.call("DEL", **values) is None, "DEL prints nothing"

    def check(self, result, **values):
        assert self.call("CHECK", prevResult=result, **values) is None, "CHECK prints nothing"

    def collect(self, valid, **values):
        listed = [{"containerID": container, "ifname": interface} for container, interface in valid]
        nobody = dict.fromkeys(["container", "interface", "netns"])  # called for a network, without a pod
        return self.call("GC", **{"cni.dev/valid-attachments": listed, **values, **nobody})

    def owners(self):
        """The owners by device."""
        return {a.device_id: (a.owner.container_id, a.owner.interface) for a in self.datapath.list().attachments}

    def clear(self):
        for attachment in self.datapath.list().attachments:
            self.datapath.detach(attachment.owner)


@contextlib.contextmanager
def shared_daemon():
    """A vdpa-datapath with nic-0 to nic-2, for all tests of a module that don't stop it."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="vdpa-", dir="/tmp"))
    try:
        with Datapath(directory) as program:
            yield program.wait_serving().offer(count=3).wait_healthy()
    finally:
        shutil.rmtree(directory)


# --- fixtures

@pytest.fixture(scope="module")
def daemon():
    with shared_daemon() as program:
        yield program


@pytest.fixture
def node(daemon):
    """A node shared by all tests that don't stop the daemon; each test detaches what it attached."""
    node = Node(daemon)
    yield node
    node.clear()


@pytest.fixture
def own_node(directory):
    """A node with a daemon of its own, which a test may stop and kill."""
    with Datapath(directory) as program:
        yield Node(program.wait_serving().offer().wait_healthy())
