"""The settings of a vdpa-switch port besides its address: trust and the rate limit."""

import time

import pytest

from pod import Pod, exchange, mac
from processes import TICKS
from support import wait_until
from switch import Switch
from testpmd import Testpmd

pytestmark = [pytest.mark.packets, pytest.mark.release]


@pytest.fixture
def switch(directory):
    with Switch(directory) as program:
        yield program.wait_ready()


# --- trust

@pytest.fixture
def pods(switch):
    """Port p1, whose pod is checked and trusted, and p2 and p3."""
    with Pod(switch.add("p1", mac(1), spoof_check=True, trust=True), mac(1)) as trusted, \
            Pod(switch.add("p2", mac(2)), mac(2)) as other, Pod(switch.add("p3", mac(3)), mac(3)) as third:
        for port in ("p1", "p2", "p3"):
            switch.wait_connected(port)
        yield trusted, other, third


def test_a_trusted_pod_takes_another_address(switch, pods):
    trusted, other, third = pods
    trusted.send_to(other.mac, b"from another", sender=mac(0x51))
    assert other.wait_payload(b"from another") == [b"from another"]
    other.send_to(mac(0x51), b"to the other")
    other.send_to(trusted.mac, b"to its own")
    assert trusted.wait_payload(b"to its own") == [b"to the other", b"to its own"]
    exchange(other, third)  # by then the third would have received flooded frames
    assert third.take() == []
    assert switch.drops("p1") == {}


@pytest.mark.parametrize("sender", [mac(3), "03:00:00:00:00:01", "ff:ff:ff:ff:ff:ff"],
                         ids=["another port's", "multicast", "broadcast"])
def test_a_trusted_pod_takes_no_address_that_is_none_of_its_own(switch, pods, sender):
    trusted, other, third = pods
    trusted.send_to(other.mac, b"spoofed", sender=sender)
    trusted.send_to(other.mac, b"honest")
    assert other.wait_payload(b"honest") == [b"honest"]
    assert switch.drops("p1") == {"spoofed": 1}
    exchange(other, third)  # whose address is still on its port


def test_addresses_of_another_vlan_are_free(switch, pods):
    trusted, other, _ = pods
    switch.add("p4", mac(4), vlan=7)
    trusted.send_to(other.mac, b"from VLAN 0", sender=mac(4))
    assert other.wait_payload(b"from VLAN 0") == [b"from VLAN 0"]


def test_an_address_that_a_port_is_given_is_taken_from_whoever_had_it(switch, pods):
    trusted, other, _ = pods
    trusted.send_to(other.mac, b"free", sender=mac(5))
    other.wait_payload(b"free")  # it is taken from the ring before the switch checks it
    with Pod(switch.add("p5", mac(5)), mac(5)) as owner:
        switch.wait_connected("p5")
        trusted.send_to(other.mac, b"taken", sender=mac(5))
        exchange(other, owner)
    assert switch.drops("p1") == {"spoofed": 1}


def test_trust_ends_at_run_time(switch, pods):
    trusted, other, _ = pods
    trusted.send_to(other.mac, b"trusted", sender=mac(0x51))
    assert other.wait_payload(b"trusted") == [b"trusted"]
    switch.call("set_port", id="p1", mac=mac(1), spoof_check=True, trust=False)
    trusted.send_to(other.mac, b"no longer", sender=mac(0x51))
    trusted.send_to(other.mac, b"honest")
    assert other.wait_payload(b"honest") == [b"honest"]
    assert switch.drops("p1") == {"spoofed": 1}


# --- max_tx_rate

def sender(directory, socket, size, queues=1, name="sender"):
    """An application that sends frames of `size` bytes to mac(2) as fast as it can, limited only by its rings."""
    vdev = f"net_virtio_user0,path={socket},mac={mac(1)},queues={queues},queue_size=1024"
    return Testpmd(name, directory, [vdev], "txonly", queues, arguments=[f"--txpkts={size}", f"--eth-peer=0,{mac(2)}"])


def mbits(switch, port="p1", seconds=1.0):
    """The sending rate of a port's pod, measured over an interval of at least this many seconds."""
    # The clock is read before and after both readings: too long an interval shows a lower rate, never a higher one.
    start, before = time.monotonic(), switch.stats(port)["tx_bytes"]
    wait_until(lambda: time.monotonic() >= start + seconds, "the end of the measurement", interval=0.1)
    return (switch.stats(port)["tx_bytes"] - before) * 8 / (time.monotonic() - start) / 1e6


def wait_rate(switch, rate, tolerance=0.03):
    """Waits for an interval with this rate. A busy machine lowers the rate; nothing may raise it."""
    seen = []

    def reached():
        seen.append(mbits(switch))
        assert seen[-1] < rate * (1 + tolerance), f"{seen} Mbit/s, limited to {rate}"
        return seen[-1] > rate * (1 - tolerance)
    wait_until(reached, lambda: f"{rate} Mbit/s: {seen}", 60)


@pytest.mark.parametrize("rate, size", [(1, 64), (1, 1514), (10, 64), (50, 64), (100, 1514), (1000, 1514)])
def test_a_port_s_rate_is_what_it_was_set_to(directory, switch, rate, size):
    path = switch.add("p1", mac(1), max_tx_rate=rate)
    switch.add("p2", mac(2))
    with sender(directory, path, size):
        wait_until(lambda: switch.stats("p1")["tx_bytes"] > rate * 1e6 / 8 / 10, "the saved-up credit to be used")
        wait_rate(switch, rate)
    assert switch.drops("p1") == {}, "it shapes without dropping"


def test_the_rate_is_set_and_taken_away_at_run_time(directory, switch):
    path = switch.add("p1", mac(1))
    switch.add("p2", mac(2))
    with sender(directory, path, 1514):
        wait_until(lambda: mbits(switch, seconds=0.2) > 150, "an unlimited port's rate")
        for rate in (100, 5, 50):
            switch.call("set_port", id="p1", mac=mac(1), max_tx_rate=rate)
            mbits(switch, seconds=0.1)  # the credit of the new rate
            wait_rate(switch, rate)
        switch.call("set_port", id="p1", mac=mac(1))
        wait_until(lambda: mbits(switch, seconds=0.2) > 150, "an unlimited port's rate again")


@pytest.mark.parametrize("cores", ["0", "0,1"], ids=["one poller", "two pollers"])
def test_all_queues_share_the_rate(directory, cores):
    with Switch(directory, "--cores", cores, queue_pairs=2) as switch:
        path = switch.wait_ready().add("p1", mac(1), max_tx_rate=20)
        switch.add("p2", mac(2))
        with sender(directory, path, 1514, queues=2) as application:
            wait_until(lambda: switch.stats("p1")["tx_bytes"] > 0, "frames")
            mbits(switch, seconds=0.1)
            wait_rate(switch, 20)
            before = [application.counter(f"tx_q{queue}_good_packets") for queue in range(2)]
            for queue in range(2):
                wait_until(lambda: application.counter(f"tx_q{queue}_good_packets") > before[queue] + 300,
                           lambda: f"frames of queue {queue}:\n{application.log()[-3000:]}")


def test_a_limited_port_costs_no_cpu_while_it_waits(directory, switch):
    path = switch.add("p1", mac(1), max_tx_rate=5)
    switch.add("p2", mac(2))
    with sender(directory, path, 1514):
        wait_until(lambda: switch.stats("p1")["tx_packets"] > 100, "frames")
        used = []

        def quiet():
            ticks, start = switch.cpu_ticks(), time.monotonic()
            assert mbits(switch, seconds=2) > 1, "it must be sending meanwhile"
            used.append((switch.cpu_ticks() - ticks) / TICKS / (time.monotonic() - start))
            return used[-1] < 0.1
        wait_until(quiet, lambda: f"a switch that sleeps; it used {used} of a CPU")


def test_no_frame_is_forgotten_while_a_port_waits(switch):
    """A poller that missed a wake-up would find the frame a second later."""
    with Pod(switch.add("p1", mac(1), max_tx_rate=1), mac(1)) as limited, Pod(switch.add("p2", mac(2)), mac(2)) as other:
        switch.wait_connected("p1")
        switch.wait_connected("p2")
        start = time.monotonic()
        for number in range(50):
            limited.send_to(other.mac, b"frame %d" % number, size=1514)
            other.wait_payload(b"frame %d" % number)
        took = time.monotonic() - start
    assert 48 * 1514 * 8 / 1e6 - 0.02 < took < 10


def test_other_ports_don_t_wait_for_a_limited_one(directory, switch):
    path = switch.add("p1", mac(1), max_tx_rate=1)
    with sender(directory, path, 1514), Pod(switch.add("p3", mac(3)), mac(3)) as one, \
            Pod(switch.add("p4", mac(4)), mac(4)) as other:
        for port in ("p1", "p3", "p4"):
            switch.wait_connected(port)
        wait_until(lambda: switch.stats("p1")["tx_packets"] > 10, "the limited port to wait")
        times = []
        for number in range(100):
            start = time.monotonic()
            exchange(one, other, b"%d" % number)
            times.append(time.monotonic() - start)
        assert sorted(times)[len(times) // 2] < 0.01, f"half of the exchanges waited: {sorted(times)}"
