"""Linux guests in QEMU, with a stock kernel's virtio_net, on one switch: with each other and with a DPDK pod. They boot once;
each test leaves them as it found them."""

import pytest

from datapath import owner, settings
from guest import Shell
from pod import mac
from switched_node import running
from testpmd import Testpmd

pytestmark = [pytest.mark.packets, pytest.mark.release]
MIB = 1 << 20
PAIRS = 16


class Guests:
    def __init__(self, node):
        self.node = node
        self.all = []
        for number, options in enumerate(("", ",packed=on")):
            self.node.datapath.attach(owner(f"guest{number}"), f"nic-{number}", settings(mac=mac(0x10 + number)))
            self.all.append(node.stack.enter_context(Shell(
                node.datapath.directory, node.datapath.socket(f"nic-{number}"), name=f"guest{number}", queues=PAIRS,
                address=mac(0x10 + number), options=f",mq=on{options}")))
        for number, guest in enumerate(self.all):
            guest.wait_booted()
            self.configure(number)

    def configure(self, number, mtu=1500):
        self.all[number].run(f"ip link set eth0 mtu {mtu} up && ip address add {self.address(number)}/24 dev eth0")
        self.all[number].run("guest-net udp-echo 7 &")

    @staticmethod
    def address(number):
        return f"192.0.2.{number + 1}"

    def tcp(self, sender, size=MIB):
        """Sends so many bytes, which the other one checks."""
        one, other = self.all[sender], self.all[1 - sender]
        other.begin("guest-net tcp-receive 80")
        # Until the other one listens.
        one.run(f"for n in 1 2 3 4 5 6 7 8 9; do guest-net tcp-send {self.address(1 - sender)} 80 {size} && break; sleep 0.2; "
                f"done; [ $n -lt 9 ]", 120)
        assert f"received {size} bytes" in other.end()

    def udp(self, sender, address=None, sizes=(1, 1000, 1472), count=20):
        for size in sizes:
            self.all[sender].run(f"guest-net udp-ask {address or self.address(1 - sender)} 7 {count} {size}")

    def ping(self):
        """Waits until they reach each other."""
        for number in range(2):
            self.all[number].run(f"for n in 1 2 3 4 5 6 7 8 9; do ping -c 1 -w 2 {self.address(1 - number)} >/dev/null && "
                                 "break; done; [ $n -lt 9 ]")


@pytest.fixture(scope="module")
def guests(module_directory):
    with running(module_directory, queue_pairs=PAIRS) as node:
        made = Guests(node)
        made.ping()
        yield made


@pytest.mark.parametrize("sender", [0, 1], ids=["split to packed", "packed to split"])
def test_tcp_and_udp(guests, sender):
    before = guests.node.control.stats("nic-0")
    guests.tcp(sender, 4 * MIB)
    guests.udp(sender)
    now = guests.node.control.stats("nic-0")
    way = "rx_bytes" if sender else "tx_bytes"
    assert now[way] - before[way] > 4 * MIB * 1.03, "the segments' bytes are counted, each with its headers"


@pytest.mark.parametrize("sender", [0, 1])
def test_offloads_are_switched_off_and_on(guests, sender):
    """ethtool -K, one by one on either side, with TCP and UDP in each combination."""
    one, other = guests.all[sender], guests.all[1 - sender]
    for guest, names in ((one, ("tso", "gso", "tx")), (other, ("gro",))):
        try:
            for name in names:
                assert guest.run(f"guest-net offload eth0 {name} off") == f"{name} off"
                guests.tcp(sender, MIB // 4)
                guests.udp(sender, sizes=(999,), count=3)
        finally:
            for name in reversed(names):
                assert guest.run(f"guest-net offload eth0 {name} on") == f"{name} on", "the device offers it"
    guests.tcp(sender, MIB // 4)


def test_queue_pairs_are_changed(guests):
    """ethtool -L."""
    for number, guest in enumerate(guests.all):
        for pairs in (2, PAIRS, 1):
            assert guest.run(f"guest-net channels eth0 {pairs}") == f"{pairs} of {PAIRS} channels"
            guests.tcp(number, MIB // 4)
            guests.udp(1 - number, sizes=(500,), count=5)


def test_a_smaller_mtu(guests):
    for number in range(2):
        guests.all[number].run("ip link set eth0 mtu 1000")
    try:
        guests.tcp(0)
        guests.udp(1, sizes=(900, 3000))   # fragments
    finally:
        for number in range(2):
            guests.all[number].run("ip link set eth0 mtu 1500")
    assert guests.all[0].run("cat /sys/class/net/eth0/carrier") == "1"


def test_the_driver_is_unbound_and_bound(guests):
    guest = guests.all[0]
    for _ in range(2):
        guest.run("cd /sys/bus/virtio/drivers/virtio_net && d=$(ls -d virtio*) && echo $d > unbind && echo $d > bind; cd /")
        guest.run("killall guest-net; true")
        guests.configure(0)
        guests.ping()
        guests.tcp(0, MIB // 4)
        guests.tcp(1, MIB // 4)


def test_a_guest_restarts(guests):
    """QEMU resets the device and stays; the other guest goes on."""
    guest = guests.all[1]
    guest.begin("reboot -f")
    guest.wait_booted()
    guests.configure(1)
    guests.ping()
    guests.tcp(0, MIB // 4)
    guests.tcp(1, MIB // 4)
    guests.udp(1)


def test_a_guest_and_a_dpdk_pod(guests):
    """DPDK swaps addresses and ports of each datagram. The guest leaves their checksums to the device, DPDK agrees on none."""
    node, guest = guests.node, guests.all[0]
    node.attach(2)
    vdev = f"net_virtio_user0,path={node.datapath.socket('nic-2')},mac={mac(2)},packed_vq=1"
    with Testpmd("swap", node.datapath.directory, [vdev], "5tswap"):
        node.control.wait_connected("nic-2")
        guest.run(f"arp -s 192.0.2.9 {mac(2)}")
        guests.udp(0, "192.0.2.9", count=50)
