"""The keys of the configuration that have an effect on the node, from the YAML to the pod: vdpa-device-plugin, vdpa-datapath,
vdpa-worker and vdpa-switch together, with a resource of defaults beside one that has every key."""

import contextlib
import os
import pathlib
import stat
import struct

import pytest

from datapath import Datapath, owner
from device_plugin import PluginNode
from pod import BROADCAST, Pod, frame
from support import wait_until
from vhost_front import SET_PROTOCOL_FEATURES, FrontEnd
from wire import raw_socket, wire

GET_QUEUE_NUM, MULTIQUEUE = 17, 1 << 0
LABEL = "system_u:object_r:container_file_t:s0:c1,c2"
CONFIGURATION = f"""
resources:
- name: nic
  backend: software
  software: {{ports: 2}}
- name: lan
  backend: software
  socket: {{uid: 107, gid: 108, mode: "0620", selinuxLabel: "{LABEL}"}}
  software: {{ports: 3, queuePairs: 3, mtu: 1800, cores: "1", uplink: {{netdev: uplink0}}}}
"""


class Scene:
    """Two devices of each resource are attached."""

    def __init__(self, directory, node, datapath, namespace):
        self.directory, self.node, self.datapath, self.namespace = directory, node, datapath, namespace
        self.attachments = {device: datapath.attach(owner(f"c-{device}"), device)
                            for device in ("nic-0", "nic-1", "lan-0", "lan-1")}

    def socket(self, name):
        return self.datapath.socket(f"{name}-0")

    @contextlib.contextmanager
    def pod(self, name, number=0):
        device = f"{name}-{number}"
        with Pod(self.datapath.socket(device), self.attachments[device].settings.mac) as pod:
            with contextlib.closing(self.datapath.switch_control(name)) as control:
                control.wait_connected(device)
            yield pod


@pytest.fixture(scope="module")
def scene(module_directory):
    node = PluginNode(module_directory)
    node.config.write_text(CONFIGURATION)
    node.kubelet.start()
    with wire() as namespace, Datapath(module_directory, wrapper=["ip", "netns", "exec", namespace]) as datapath, \
            node.plugin():
        datapath.wait_serving()
        for name, last in ("nic", "nic-1"), ("lan", "lan-2"):
            wait_until(lambda name=name, last=last: node.kubelet.wait_plugin(f"vdpa.io/{name}").devices.get(last) == "Healthy",
                       datapath.log)
        yield Scene(module_directory, node, datapath, namespace)
    node.kubelet.stop()


def label(scene, name):
    try:
        return os.getxattr(scene.socket(name), "security.selinux").rstrip(b"\0").decode()
    except OSError:   # without SELinux files have no label
        return None


def queue_pairs(scene, name):
    """The number in the pod's driver, and that in the pod's start argument."""
    with FrontEnd(scene.socket(name)) as front:
        front.send(SET_PROTOCOL_FEATURES, struct.pack("<Q", MULTIQUEUE))
        told = struct.unpack("<Q", front.ask(GET_QUEUE_NUM))[0]
    argument = scene.datapath.path(f"{name}-0", "eal-args").read_text()
    return told, next(word for word in argument.split(",") if word.startswith("queues="))


def longest_frame(scene, name):
    """The received frames: one that fits an MTU of 1800, and one that fits any."""
    with scene.pod(name) as one, scene.pod(name, 1) as other:
        one.send_to(other.mac, b"1800", size=1814)
        one.send_to(other.mac, b"any")
        return other.wait_payload(b"any")


def pollers(scene, name):
    """The CPUs of each polling thread of the resource's switch."""
    tasks = pathlib.Path(f"/proc/{scene.datapath.switch_pid(f'vdpa.io-{name}')}/task").iterdir()
    return {(task / "comm").read_text().strip(): os.sched_getaffinity(int(task.name))
            for task in tasks if (task / "comm").read_text().startswith("poller-")}


def seen_outside(scene, name):
    """The frames that leave the node when a pod of the resource sends, and then a pod of one with an uplink."""
    with raw_socket(scene.namespace) as outside, scene.pod(name) as pod, scene.pod("lan", 1) as last:
        pod.push(frame(BROADCAST, pod.mac, b"from " + name.encode()))
        last.push(frame(BROADCAST, last.mac, b"the last"))
        came = []
        while b"the last" not in came:
            came.append(outside.recv(2048)[14:].rstrip(b"\0"))
        return [payload for payload in came if payload.startswith(b"from ")]


EFFECTS = {   # called with the scene and the resource; the values without the key, and with it
    "socket.uid": (lambda s, name: s.socket(name).stat().st_uid, 0, 107),
    "socket.gid": (lambda s, name: s.socket(name).stat().st_gid, 0, 108),
    "socket.mode": (lambda s, name: oct(stat.S_IMODE(s.socket(name).stat().st_mode)), "0o666", "0o620"),
    "socket.selinuxLabel": (label, None, LABEL),
    "software.ports": (lambda s, name: len(list((s.datapath.run_dir / "devices").glob(f"{name}-*"))), 2, 3),
    "software.queuePairs": (queue_pairs, (1, "queues=1"), (3, "queues=3")),
    "software.mtu": (longest_frame, [b"any"], [b"1800", b"any"]),
    "software.cores": (pollers, {"poller-0": os.sched_getaffinity(0)}, {"poller-0": {1}}),
    "software.uplink": (seen_outside, [], [b"from lan"]),
}


@pytest.mark.parametrize("key", EFFECTS)
def test_the_effect_of_a_key_and_of_its_absence(scene, key):
    effect, default, expected = EFFECTS[key]
    assert effect(scene, "nic") == default, f"without {key}"
    assert effect(scene, "lan") == expected, f"with {key}"
