"""A switch's uplink that is a function behind VFIO, driven by DPDK: QEMU's virtio-net and its igb. The first is wired to a
netdev of the kernel's; igb is wired to nothing."""

import pathlib
import socket

import pytest
from hardware import IGB_PF, PCI, PLAIN, run
from pod import BROADCAST, Pod, frame, mac
from processes import asleep, memory_kib
from support import wait_until
from switch import Switch
from wire import receive


@pytest.fixture
def vfio(node):
    """Binds functions to vfio-pci, and afterwards to the driver that had them."""
    run("modprobe", "vfio-pci")
    # This machine's IOMMU remaps no interrupts.
    pathlib.Path("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts").write_text("1")
    bound = {}

    def bind(address):
        bound[address] = node.driver(address)
        node.bind(address, "vfio-pci")
        return address
    yield bind
    for address, driver in bound.items():
        node.bind(address, driver)


@pytest.fixture
def outside(node):
    """A socket on the netdev that is wired to PLAIN."""
    netdev = node.pf_netdev()
    pathlib.Path(f"/proc/sys/net/ipv6/conf/{netdev}/disable_ipv6").write_text("1")
    run("ip", "link", "set", netdev, "promisc", "on")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as outside:
        outside.bind((netdev, 0))
        outside.settimeout(30)
        yield outside
    run("ip", "link", "set", netdev, "promisc", "off")


def wait_ready(switch):
    """DPDK starts slowly under emulation."""
    wait_until(lambda: "switch vdpa.io-nic:" in switch.log() or not switch.running(), switch.log, 120)
    assert switch.running(), switch.log()
    return switch


def take_earlier_frames(outside, pod):
    """What kernels have said to all waits in the wire since the boot, while nobody drives its other end: more than the pod has
    buffers for."""
    def arrived():
        outside.send(frame(BROADCAST, mac(0x98), b"from now on"))
        return b"from now on" in pod.payloads()
    wait_until(arrived, "a frame that is sent now")


def test_frames_pass_and_wake_the_switch(directory, outside, vfio):
    with Switch(directory, "--uplink-pci", vfio(PLAIN)) as switch:
        wait_ready(switch)
        with Pod(switch.add("p1", mac(1))) as plain, Pod(switch.add("p2", mac(2), vlan=7), mac(2)) as tagged:
            for port in "p1", "p2":
                switch.wait_connected(port)
            plain.send_to(mac(0x99), b"out plain")
            vlan, data = receive(outside, b"out plain")
            assert vlan is None and data[:14] == frame(mac(0x99), mac(1))[:14]
            tagged.send_to(BROADCAST, b"out tagged")
            vlan, data = receive(outside, b"out tagged")
            assert vlan == 7 and data[:14] == frame(BROADCAST, mac(2))[:14]
            take_earlier_frames(outside, plain)
            outside.send(frame(mac(1), mac(0x98), b"in plain"))
            outside.send(frame(mac(2), mac(0x97), b"in tagged", vlan=7))
            # Each also gets what kernels say to all, such as their routers' solicitations.
            assert b"in tagged" not in plain.wait_payload(b"in plain")
            assert b"in plain" not in tagged.wait_payload(b"in tagged")
            wait_until(lambda: asleep(switch.pid), "the switch to sleep")
            outside.send(frame(mac(1), mac(0x98), b"awake"))
            plain.wait_payload(b"awake")
        print("memory of the switch:", memory_kib(switch.pid), "KiB")


def test_it_is_taken_again_after_a_crash(directory, outside, vfio):
    address = vfio(PLAIN)
    for name in "first", "second":
        with Switch(directory, "--uplink-pci", address, name=name) as switch:
            wait_ready(switch)
            with Pod(switch.add("p1", mac(1))) as pod:
                switch.wait_connected("p1")
                pod.send_to(BROADCAST, b"out")
                receive(outside, b"out")
            switch.kill()


def test_several_queues_and_jumbo_frames(directory, vfio):
    with Switch(directory, "--uplink-pci", vfio(IGB_PF), "--cores", "0,1", "--mtu", "9000") as switch:
        wait_ready(switch)
        assert switch.stop() == 0


def test_more_queues_than_it_has(directory, vfio):
    with Switch(directory, "--uplink-pci", vfio(PLAIN), "--cores", "0,1") as switch:
        wait_until(lambda: not switch.running(), switch.log, 120)
        assert "has 1 receive and 1 transmit queues, but the switch 2 polling threads: give it fewer 'cores'" in switch.log()


def test_a_function_of_another_driver_is_refused(directory, node):
    assert node.driver(PLAIN) == "virtio-pci"
    with Switch(directory, "--uplink-pci", PLAIN) as switch:
        wait_until(lambda: not switch.running(), switch.log, 60)
        assert f"uplink PCI function {PLAIN} (1af4:1041) is bound to virtio-pci, but must be bound to vfio-pci" in switch.log()
    assert (PCI / "devices" / PLAIN / "driver").resolve().name == "virtio-pci"
