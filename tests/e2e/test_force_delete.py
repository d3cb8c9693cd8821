"""A pod that is force-deleted and ends late: the kubelet reassigns its device while its application still runs."""

import contextlib
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from cluster import PORTS, OnNode, network, pod
from exchange import endpoint
from support import wait_until
from testpmd import Application

EVERYBODY = "ff:ff:ff:ff:ff:ff"
BURST = 32


class Outlaw:
    """A pod that keeps running after the API server has deleted it. A kubelet kills a force-deleted pod's containers after a
    second; here their shim, which would kill them, is stopped to simulate an extreme delay."""

    def __init__(self, cluster, name):
        self.name = name
        cluster.apply(endpoint(name, 1, networks="quiet"))
        cluster.wait_running(name)
        self.pid = wait_until(self._find, f"testpmd of {name}", 30, 0.2)
        self.shim = int(re.search(r"^PPid:\s*(\d+)", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)[1])
        assert "containerd-shim" in Path(f"/proc/{self.shim}/cmdline").read_text()
        self.application = Application(self.shell)

    def _find(self):
        for path in Path("/proc").glob("[0-9]*/comm"):
            try:
                if path.read_text() == "dpdk-testpmd\n" and \
                        f"HOSTNAME={self.name}\0".encode() in (path.parent / "environ").read_bytes():
                    return int(path.parent.name)
            except OSError:   # the process has ended meanwhile
                continue
        return None

    def shell(self, line):
        """As the pod's user, through the node, since the API server no longer reaches the pod."""
        enter = ["nsenter", "-t", str(self.pid), "--mount", "--pid", "--setuid", "1000", "--setgid", "0", "--"]
        return subprocess.run([*enter, "sh", "-c", line], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True,
                              check=True, timeout=60).stdout

    def open_socket(self, device):
        """The descriptor of a program that keeps the socket itself, not only its path."""
        return os.open(f"/proc/{self.pid}/root/run/vdpa/{device}/vhost.sock", os.O_PATH)

    def runs(self):
        return Path(f"/proc/{self.pid}").exists()

    def hold(self):
        os.kill(self.shim, signal.SIGSTOP)

    def let_go(self):
        os.kill(self.shim, signal.SIGCONT)


@pytest.fixture
def outlaw(cluster):
    # In a VLAN of its own, so that no other traffic of the uplink's network reaches it.
    cluster.apply(network("quiet", vlan=77), *[pod(f"holder-{i}") for i in range(PORTS - 2)])
    found = Outlaw(cluster, "old")
    found.hold()
    yield found
    with contextlib.suppress(ProcessLookupError):
        found.let_go()


def launch(cluster, name):
    cluster.apply(endpoint(name, 0, networks="quiet"))
    cluster.wait_running(name)
    return Application(lambda line: cluster.exec(name, "sh", "-c", line))


def send_burst(application, to):
    """Sends exactly one burst, whatever the state of the device."""
    application.tell(f"set eth-peer 0 {to}", "set fwd rxonly", "start tx_first 1")


def test_neither_pod_sees_the_others_packets(cluster, outlaw):
    old, node = outlaw.application, OnNode("node1")
    near = launch(cluster, "near")
    for i in range(PORTS - 2):
        cluster.wait_running(f"holder-{i}")
    device = cluster.device_of("old")
    netns = node.root / "run/netns" / Path(node.attached()["old"].owner.netns).name

    # While the device is still its own, the old pod gets packets.
    old.tell("set fwd rxonly", "start")
    send_burst(near, EVERYBODY)
    wait_until(lambda: old.counters()[0] == BURST, lambda: str(old.counters()), 30, 0.2)
    near.tell("stop")
    kept = outlaw.open_socket(device)

    try:
        # All other devices are taken, so the next pod gets this one.
        cluster.delete("old", force=True)
        new = launch(cluster, "next")
        assert cluster.device_of("next") == device
        assert outlaw.runs()

        new.tell("set fwd rxonly", "start")
        old_before, near_before = old.counters(), near.counters()
        send_burst(near, EVERYBODY)
        wait_until(lambda: new.counters()[0] == BURST, lambda: str(new.counters()), 30, 0.2)
        assert old.still() == old_before

        old.tell("stop")
        send_burst(old, EVERYBODY)
        wait_until(lambda: old.counters()[1] == old_before[1] + BURST, lambda: str(old.counters()), 30, 0.2)
        assert new.still() == (BURST, 0)
        assert near.still() == (near_before[0], near_before[1] + BURST)

        # A second application on the old path, and a program that kept the socket open.
        refused = outlaw.shell(f"dpdk-testpmd --no-pci --no-huge -m 128 --no-telemetry --file-prefix=again "
                               f"$(cat /tmp/eal-args) -- --total-num-mbufs=4096 2>&1; ls /run/vdpa/{device}")
        assert "No such file or directory" in refused and "vhost.sock" not in refused.splitlines()[-1], refused
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(f"/proc/self/fd/{kept}")
    finally:
        os.close(kept)

    # The old pod's late DEL does not affect the new one.
    outlaw.let_go()
    wait_until(lambda: not netns.exists(), "the old pod's network namespace is gone", 60, 0.2)
    near.tell("stop")
    send_burst(near, EVERYBODY)
    wait_until(lambda: new.counters()[0] == 2 * BURST, lambda: str(new.counters()), 30, 0.2)
    assert cluster.device_of("next") == device
