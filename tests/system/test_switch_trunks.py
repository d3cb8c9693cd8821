"""Ports of vdpa-switch with tagged frames, limits of what a pod receives, and of what it sends to all."""

import contextlib
import itertools
import time

import pytest

from control_frames import Frames
from pod import BROADCAST, COUNT, Pod, exchange, frame, mac
from support import wait_until
from switch import Refused, Switch
from testpmd import Testpmd
from wire import raw_socket, receive, wire

pytestmark = pytest.mark.packets


@pytest.fixture
def switch(directory):
    with Switch(directory) as program:
        program.wait_ready()
        program.frames = Frames(program.path)
        yield program
        program.frames.close()


@contextlib.contextmanager
def pods(switch, *settings):
    """Pods on ports p1, p2, ... with these settings."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(Pod(switch.frames.add(f"p{n}", mac(n), **values), mac(n)))
                for n, values in enumerate(settings, 1)]
        for number in range(1, len(made) + 1):
            switch.wait_connected(f"p{number}")
        yield made


def tag(data):
    """A frame's VLAN, or None, and its payload."""
    if data[12:14] == b"\x81\x00":
        return int.from_bytes(data[14:16], "big") & 0xfff, data[18:].rstrip(b"\0")
    return None, data[14:].rstrip(b"\0")


def tags(pod, last):
    """Everything received up to the frame with this payload."""
    came = []
    wait_until(lambda: came.extend(map(tag, pod.take())) or last in [payload for _, payload in came],
               lambda: f"{last} among {came}", interval=0.001)
    return came


# --- trunks

TRUNK = {"vlan_trunk": "100-110,200"}


def test_tagged_frames_of_a_trunk(switch):
    with pods(switch, TRUNK, {"vlan": 105}, {"vlan": 200}, {}, TRUNK) as (trunk, red, blue, plain, other):
        for vlan, payload in ((105, b"red"), (200, b"blue"), (111, b"no member"), (99, b"nor this"), (None, b"untagged")):
            trunk.send_to(BROADCAST, payload, vlan=vlan)
        trunk.send_to(red.mac, b"end", vlan=105)
        assert tags(red, b"end") == [(None, b"red"), (None, b"end")]
        trunk.send_to(blue.mac, b"end", vlan=200)
        assert tags(blue, b"end") == [(None, b"blue"), (None, b"end")]
        trunk.send_to(other.mac, b"end", vlan=110)
        assert tags(other, b"end") == [(105, b"red"), (200, b"blue"), (110, b"end")]
        assert plain.take() == [] and switch.drops("p1") == {"vlan": 3}

        red.send_to(trunk.mac, b"back")
        blue.send_to(BROADCAST, b"to all")
        assert tags(trunk, b"to all") == [(105, b"back"), (200, b"to all")]
        assert tags(other, b"to all") == [(200, b"to all")]
        plain.send_to(trunk.mac, b"out of no VLAN")
        red.send_to(trunk.mac, b"end")
        assert tags(trunk, b"end") == [(105, b"end")]


def test_the_native_vlan_of_a_trunk(switch):
    with pods(switch, {**TRUNK, "vlan": 7}, {"vlan": 7}, {"vlan": 100}) as (trunk, native, tagged):
        exchange(trunk, native)
        trunk.send_to(BROADCAST, b"untagged")
        trunk.send_to(tagged.mac, b"tagged", vlan=100)
        assert tags(native, b"untagged") == [(None, b"untagged")]
        assert tags(tagged, b"tagged") == [(None, b"tagged")]
        native.send_to(BROADCAST, b"as it is")
        tagged.send_to(trunk.mac, b"with a tag")
        assert tags(trunk, b"with a tag") == [(None, b"as it is"), (100, b"with a tag")]


def test_addresses_are_apart_in_the_vlans_of_a_trunk(switch):
    """A stranger's address is behind another port in each."""
    with pods(switch, TRUNK, TRUNK, {"vlan": 100}, {"vlan": 200}) as (one, other, red, blue):
        stranger = mac(0x77)
        one.send_to(red.mac, b"learn", sender=stranger, vlan=100)
        other.send_to(blue.mac, b"learn", sender=stranger, vlan=200)
        tags(red, b"learn")
        tags(blue, b"learn")
        red.send_to(stranger, b"to the red one")
        blue.send_to(stranger, b"to the blue one")
        assert tags(one, b"to the red one") == [(100, b"to the red one")]
        assert tags(other, b"to the blue one") == [(200, b"to the blue one")]
        assert one.take() == other.take() == []


def test_a_trunk_s_largest_frame_has_a_tag_more(switch):
    with pods(switch, TRUNK, TRUNK, {"vlan": 100}) as (one, other, access):
        one.send_to(other.mac, b"fits", vlan=100, size=1518)
        one.send_to(other.mac, b"too long", vlan=100, size=1519)
        one.send_to(other.mac, b"end", vlan=100)
        assert tags(other, b"end") == [(100, b"fits"), (100, b"end")]
        access.send_to(one.mac, b"fits", size=1514)
        assert tags(one, b"fits") == [(100, b"fits")]
        assert switch.drops("p1") == {"too_long": 1}


def test_spoof_check_of_a_trunk(switch):
    with pods(switch, {**TRUNK, "spoof_check": True}, {"vlan": 100}) as (trunk, red):
        trunk.send_to(red.mac, b"made up", sender=mac(9), vlan=100)
        trunk.send_to(red.mac, b"honest", vlan=100)
        assert tags(red, b"honest") == [(None, b"honest")] and switch.drops("p1") == {"spoofed": 1}


def test_a_trunk_is_changed_at_run_time(switch):
    with pods(switch, TRUNK, {"vlan": 100}, {"vlan": 50}) as (trunk, red, green):
        trunk.send_to(red.mac, b"before", vlan=100)
        tags(red, b"before")
        switch.frames.set("p1", trunk.mac, vlan_trunk="50")
        trunk.send_to(red.mac, b"no member", vlan=100)
        trunk.send_to(green.mac, b"member", vlan=50)
        assert tags(green, b"member") == [(None, b"member")]
        switch.frames.set("p1", trunk.mac, vlan=100)
        exchange(trunk, red)
        assert switch.drops("p1") == {"vlan": 1}


def test_a_trunk_and_the_uplink(directory):
    with wire() as name, Switch(directory, "--uplink", "uplink0", wrapper=["ip", "netns", "exec", name]) as switch:
        switch.frames = Frames(switch.wait_ready().path)
        with raw_socket(name) as outside, pods(switch, {**TRUNK, "vlan": 7}) as (trunk,):
            trunk.send_to(BROADCAST, b"out tagged", vlan=105)
            assert receive(outside, b"out tagged")[0] == 105
            trunk.send_to(BROADCAST, b"out native")
            assert receive(outside, b"out native")[0] == 7
            for vlan, payload in ((110, b"in"), (111, b"no member"), (7, b"in native"), (None, b"untagged"), (200, b"end")):
                outside.send(frame(BROADCAST, mac(0x98), payload, vlan=vlan))
            assert tags(trunk, b"end") == [(110, b"in"), (None, b"in native"), (200, b"end")]
        switch.frames.close()


@pytest.mark.parametrize("values", [{"vlan_trunk": "x"}, {"vlan_trunk": "0-5"}, {"vlan_trunk": "100-4095"},
                                    {"vlan_trunk": "110-100"}, {"vlan": 100, "vlan_trunk": "100"},
                                    {"max_rx_rate": -1}, {"max_rx_rate": 1000001}, {"burst": -1}, {"storm_limit": -1},
                                    {"storm_limit": 1000001}], ids=str)
def test_settings_that_are_none(switch, values):
    with pytest.raises(Refused) as refusal:
        switch.frames.add("p1", mac(1), **values)
    assert next(iter(values)) in str(refusal.value)
    assert switch.call("ports")["ports"] == []


# --- limits

def sender(directory, socket):
    return Testpmd("sender", directory, [f"net_virtio_user0,path={socket},mac={mac(1)},queue_size=1024"], "txonly",
                   arguments=["--txpkts=1514", f"--eth-peer=0,{mac(2)}"])


@pytest.mark.release
@pytest.mark.parametrize("rate", [10, 200])
def test_what_a_pod_receives_is_limited(directory, switch, rate):
    """The rest is dropped by that name, and the sender's other frames don't wait."""
    with pods(switch, {}, {"max_rx_rate": rate}) as (one, _), contextlib.ExitStack() as stack:
        one.socket.close()
        switch.wait_connected("p1", False)
        stack.enter_context(sender(directory, switch.port("p1")["socket"]))
        receiver = Testpmd("receiver", directory, [
            f"net_virtio_user0,path={switch.frames.add('p3', mac(3))},mac={mac(3)}"], "rxonly", core=1)
        stack.enter_context(receiver)
        wait_until(lambda: switch.drops("p2").get("rate", 0) > 1000 or switch.drops("p2").get("rx_full", 0) > 1000,
                   lambda: switch.stats("p2"))
        rates = []

        def reached():
            start, before = time.monotonic(), switch.stats("p2")
            wait_until(lambda: time.monotonic() >= start + 1, "the end of the measurement", interval=0.1)
            now = switch.stats("p2")
            # Frames that pass the limit and find a full ring have passed.
            passed = now["rx_bytes"] - before["rx_bytes"] + 1514 * (now["drops"]["rx_full"] - before["drops"]["rx_full"])
            rates.append(passed * 8 / (time.monotonic() - start) / 1e6)
            assert rates[-1] < rate * 1.05, rates
            return rates[-1] > rate * 0.95
        wait_until(reached, lambda: f"{rate} Mbit/s: {rates}", 60)
        assert switch.drops("p1") == {}, "the receiver's limit is not the sender's"


def test_a_burst_passes_a_limit_after_a_silence(switch):
    """64 KiB are 43 frames; at 1 Mbit/s another follows every 12 ms."""
    with pods(switch, {}, {"max_rx_rate": 1, "burst": 64}, {"max_rx_rate": 1}) as (one, large, small):
        passed = {}
        for pod, port in ((large, "p2"), (small, "p3")):
            pod.post(100)
            start = time.monotonic()
            for _ in range(5):
                for number in range(20):
                    one.offer(frame(pod.mac, one.mac, b"%d" % number, size=1514))
                wait_until(one.idle, "the frames to be taken", interval=0.0005)
            more = (time.monotonic() - start) * 1e6 / 8 / 1514 + 2
            passed[port] = switch.stats(port)["rx_packets"]
            assert passed[port] + switch.drops(port)["rate"] == 100
            assert passed[port] <= (44 if pod is large else 2) + more
        assert passed["p2"] >= 43


def test_a_burst_of_what_a_pod_sends(switch):
    """Sixty frames; those beyond 64 KiB wait."""
    with pods(switch, {"max_tx_rate": 1, "burst": 64}, {}) as (one, other):
        times = []

        def quick():
            # The credit of a silence, which was used up by the last try.
            silence = time.monotonic() + (0.6 if times else 0)
            wait_until(lambda: time.monotonic() >= silence, "a silence", interval=0.05)
            start = time.monotonic()
            for count in (20, 20, 20):
                for number in range(count):
                    one.offer(frame(other.mac, one.mac, b"%d" % number, size=1514))
                wait_until(one.idle, "the frames to be taken", interval=0.0005)
            times.append(time.monotonic() - start)
            assert times[-1] > (60 - 46) * 1514 * 8 / 1e6 * 0.9, times
            return times[-1] < 0.45   # without a burst 0.7 s
        wait_until(quick, lambda: f"a burst: {times}")


def test_a_pod_that_sends_to_all(switch):
    """Beyond its limit the frames are dropped, so that the others' rings have room for each other's; what it sends to one pod
    is not limited."""
    with pods(switch, {}, {}, {"storm_limit": 100}) as (one, other, noisy):
        rounds = itertools.count()
        start = time.monotonic()
        for _ in range(20):
            for to in (BROADCAST, "33:33:00:00:00:01", mac(0x55)):
                for _ in range(8):
                    noisy.offer(frame(to, noisy.mac, b"noise"))
                wait_until(noisy.idle, "the frames to be taken", interval=0.0005)
            number = next(rounds)
            for sender_, receiver in ((one, other), (other, one)):
                for n in range(COUNT // 3):
                    sender_.offer(frame(receiver.mac, sender_.mac, b"%d.%d" % (number, n)))
                came = []
                wait_until(lambda receiver=receiver, came=came, number=number: came.extend(
                    p for p in receiver.payloads() if p.startswith(b"%d." % number)) or len(came) == COUNT // 3,
                    lambda came=came: f"{COUNT // 3} frames: {came}", interval=0.0005)
        passed = 20 * 24 - switch.drops("p3")["storm"]
        assert 0 < passed <= 11 + 100 * (time.monotonic() - start)
        assert switch.drops("p1") == switch.drops("p2") == {}
        before = switch.drops("p3")
        for _ in range(100):
            noisy.send_to(other.mac, b"known")
            other.wait_payload(b"known")
        assert switch.drops("p3") == before
