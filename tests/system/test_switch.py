"""vdpa-switch alone: its control channel, its uplink, and pods directly on its ports."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

import pytest

from crowd import crowd
from pod import BROADCAST, Pod, exchange, frame, mac
from processes import TICKS, asleep
from support import SANITIZED, suspend, wait_until
from switch import PROGRAM, Refused, Switch
from testpmd import application
from vhost_front import BASE, FrontEnd
from wire import raw_socket, receive, wire

pytestmark = pytest.mark.packets


@contextlib.contextmanager
def pods(switch, count, **settings):
    """Pods on ports p1, p2, ...; port n has the address mac(n)."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(Pod(switch.add(f"p{n}", mac(n), **settings), mac(n))) for n in range(1, count + 1)]
        for number in range(1, count + 1):
            switch.wait_connected(f"p{number}")
        yield made


def reconnected(switch, port):
    """Connects a pod to a port that another pod has left."""
    pod = Pod(switch.port(port)["socket"], switch.port(port)["mac"])
    switch.wait_connected(port)
    return pod


@pytest.fixture
def switch(directory):
    with Switch(directory) as program:
        yield program.wait_ready()


def test_as_many_ports_as_it_can_serve(directory):
    crowd(directory)


@pytest.mark.release
def test_the_memory_of_a_switch_without_an_uplink(switch):
    with pods(switch, 8) as made:
        for one, other in zip(made, made[1:]):
            exchange(one, other)
        used = {kind: switch.memory_kib(kind) for kind in ("RssAnon", "RssFile")}
        assert SANITIZED or sum(used.values()) < 16 << 10, used
        mapped = pathlib.Path(f"/proc/{switch.pid}/maps").read_text()
        assert "librte" not in mapped and "vdpa-switch" in mapped


# --- the control channel

def test_hello(directory):
    with Switch(directory, "--mtu", "9000", queue_pairs=2) as switch:
        hello = switch.wait_ready().call("hello")
        assert (hello["program"], hello["pid"], hello["name"]) == ("vdpa-switch", switch.pid, "vdpa.io-nic")
        assert (hello["queue_pairs"], hello["mtu"], hello["uplink"], hello["ports"]) == (2, 9000, "", [])
        switch.add("p1", mac(1))
        assert switch.call("hello")["ports"] == ["p1"]


def test_ports_are_added_changed_and_removed(switch):
    path = switch.add("p1", "02:00:00:00:00:AB", vlan=7, mtu=1400, link_up=False, spoof_check=True, trust=True,
                      max_tx_rate=1000)
    assert pathlib.Path(path).is_socket()
    expected = {"id": "p1", "socket": path, "mac": "02:00:00:00:00:ab", "vlan": 7, "mtu": 1400, "link_up": False,
                "spoof_check": True, "trust": True, "max_tx_rate": 1000, "connected": False}
    assert switch.call("ports")["ports"] == [expected]
    switch.call("set_port", id="p1", mac=mac(2), vlan=0, mtu=1500, link_up=True, spoof_check=False)
    assert switch.port("p1") == {**expected, "mac": mac(2), "vlan": 0, "mtu": 1500, "link_up": True,
                                 "spoof_check": False, "trust": False, "max_tx_rate": 0}
    switch.call("remove_port", id="p1")
    assert switch.call("ports")["ports"] == []
    assert not os.path.exists(path)
    assert switch.add("p1", mac(1)) == path


def test_a_port_is_removed_and_added_under_a_connected_pod(switch):
    path = switch.add("p1", mac(1))
    times = []
    for _ in range(3):
        with Pod(path) as pod:
            switch.wait_connected("p1")
            start = time.monotonic()
            switch.call("remove_port", id="p1")
            assert pod.closed()
            times.append(time.monotonic() - start)
        assert switch.add("p1", mac(1)) == path
        assert switch.stats("p1")["tx_packets"] == 0
    assert min(times) < 0.5, "the connection ends late"


@pytest.mark.release
def test_the_first_pod_of_a_switch_doesn_t_wait(directory):
    times = []
    for life in range(3):
        with Switch(directory, name=f"switch{life}") as switch:
            path = switch.wait_ready().add("p1", mac(1))
            start = time.monotonic()
            with Pod(path):
                times.append(time.monotonic() - start)
            assert switch.stop() == 0
    assert min(times) < 0.5, "the first connection waits"


@pytest.mark.parametrize("operation, arguments, words", [
    ("nonsense", {}, "unknown operation 'nonsense'"),
    ("add_port", {"id": "p2"}, "mac"),
    ("add_port", {"mac": mac(2)}, "id"),
    ("add_port", {"id": "p1", "mac": mac(2)}, "port p1 exists already"),
    ("add_port", {"id": "../p2", "mac": mac(2)}, "expected a device ID"),
    ("add_port", {"id": "p2" * 60, "mac": mac(2)}, "fit"),
    ("add_port", {"id": "p2", "mac": "nonsense"}, "mac 'nonsense': expected a unicast address"),
    ("add_port", {"id": "p2", "mac": "01:00:00:00:00:01"}, "expected a unicast address"),
    ("add_port", {"id": "p2", "mac": mac(2), "vlan": 4095}, "vlan 4095: expected 0 to 4094"),
    ("add_port", {"id": "p2", "mac": mac(2), "vlan": 65537}, "vlan 65537: expected 0 to 4094"),
    ("add_port", {"id": "p2", "mac": mac(2), "vlan": -1}, "vlan -1: expected 0 to 4094"),
    ("add_port", {"id": "p2", "mac": mac(2), "mtu": 1501}, "mtu 1501: expected 68 to 1500"),
    ("add_port", {"id": "p2", "mac": mac(2), "mtu": 67}, "mtu 67: expected 68 to 1500"),
    ("add_port", {"id": "p2", "mac": mac(2), "max_tx_rate": 1000001}, "max_tx_rate 1000001: expected 0 to 1000000"),
    ("set_port", {"id": "p2", "mac": mac(2)}, "no port p2"),
    ("set_port", {"id": "p1", "mac": mac(2), "mtu": 9000}, "mtu 9000"),
    ("remove_port", {"id": "p2"}, "no port p2"),
])
def test_wrong_requests_are_answered_with_words(switch, operation, arguments, words):
    switch.add("p1", mac(1))
    with pytest.raises(Refused) as refusal:
        switch.call(operation, **arguments)
    assert words in str(refusal.value)
    assert [p["id"] for p in switch.call("ports")["ports"]] == ["p1"]
    assert switch.port("p1")["mac"] == mac(1)


@pytest.mark.parametrize("line", [b"{", b"[]", b"17", b'{"id": 1}', b'{"id": 1, "op": 5, "args": {}}'])
def test_a_line_that_is_no_request(switch, line):
    with contextlib.suppress(StopIteration, ConnectionError):  # dropped, or answered with an error
        assert "error" in switch.raw(line)
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(10)
        control.connect(str(switch.path))
        control.sendall(b'{"id": 9, "op": "hello", "args": {}}\n')
        assert json.loads(control.makefile().readline())["id"] == 9


@pytest.mark.parametrize("way", ["SIGTERM", "SIGINT", "stop"])
def test_it_ends_cleanly(directory, way):
    with Switch(directory) as switch:
        switch.wait_ready()
        with pods(switch, 2) as (one, other):
            exchange(one, other)
            if way == "stop":
                switch.call("stop")
            else:
                switch.process.send_signal(getattr(signal, way))
            wait_until(lambda: not switch.running(), "the switch's end")
        assert switch.process.returncode == 0, switch.log()
        assert not switch.path.exists()
        assert list(switch.ports_dir.iterdir()) == []


@pytest.mark.parametrize("arguments, words", [
    (["--uplink", "nonet0"], "uplink netdev nonet0 is not on this node"),
    (["--uplink-xdp", "nonet0"], "uplink netdev nonet0 is not on this node"),
    (["--uplink-xdp", "lo", "--mtu", "9000"], "uplink lo carries an MTU of at most 3566 by AF_XDP, but 'mtu' in the"),
    (["--uplink-xdp", "lo", "--cores", "0,1"], "uplink lo has 1 combined and 0 other channels for received frames"),
    (["--uplink-pci", "ffff:ff:1f.7"], "uplink PCI function ffff:ff:1f.7 is not on this node"),
    (["--uplink-pci", "03:00.0"], "--uplink-pci '03:00.0': expected a PCI address"),
    (["--uplink", "lo", "--uplink-pci", "0000:03:00.0"], "a switch has one of --uplink, --uplink-xdp and --uplink-pci"),
    (["--cores", "x"], "--cores 'x': expected a CPU list"),
    (["--mtu", "10"], "--mtu"),
    (["--queue-pairs", "17"], "--queue-pairs"),
])
def test_wrong_arguments_give_one_clear_error(directory, arguments, words):
    with Switch(directory, *arguments) as switch:
        wait_until(lambda: not switch.running(), "the switch's end")
        assert switch.process.returncode not in (0, None)
        assert words in switch.log()
        assert not switch.path.exists()


@pytest.mark.parametrize("kind, value", [("--uplink", "lo"), ("--uplink-xdp", "lo"), ("--uplink-pci", "0000:03:00.0")])
def test_without_dpdk_it_has_no_uplinks(directory, kind, value):
    with Switch(directory, kind, value, program=PROGRAM) as switch:
        wait_until(lambda: not switch.running(), "the switch's end")
        assert "this program has no uplinks; vdpa-switch-dpdk has them" in switch.log()


def test_without_an_uplink_there_is_no_dpdk_in_it(switch):
    assert "librte" not in pathlib.Path(f"/proc/{switch.pid}/maps").read_text()


def test_a_poller_counts_the_time_that_frames_take(switch):
    """Time spent polling empty rings doesn't count."""
    def busy():
        return switch.call("stats")["busy_ns"]
    with pods(switch, 2) as (one, other):
        one.kick(1)  # the poller wakes and polls
        assert busy() == [0], "no frame came"
        exchange(one, other)
        first, = busy()
        assert first > 0
        exchange(one, other)
        second, = busy()
        assert second > first


@pytest.mark.parametrize("core", [0, 1])
def test_a_poller_stays_on_its_core(directory, core):
    def cores():
        """The counters of each poller, by its name."""
        return {(task / "comm").read_text().strip(): os.sched_getaffinity(int(task.name))
                for task in pathlib.Path(f"/proc/{switch.pid}/task").iterdir()
                if (task / "comm").read_text().startswith("poller-")}

    with Switch(directory, "--cores", core) as switch:
        switch.wait_ready()
        wait_until(lambda: cores() == {"poller-0": {core}}, lambda: str(cores()))


def test_events_and_stats(switch):
    path = switch.add("p1", mac(1))
    switch.add("p2", mac(2))
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(20)
        control.connect(str(switch.path))
        control.sendall(b'{"id": 1, "op": "hello", "args": {}}\n')
        lines = control.makefile()
        lines.readline()
        with Pod(path) as one:
            assert json.loads(lines.readline()) == {"event": "port", "id": "p1", "connected": True, "reason": ""}
            one.send_to(mac(2), size=100)
            wait_until(lambda: switch.stats("p1")["tx_packets"] == 1, "the frame to be counted")
            stats = switch.stats("p1")
            assert (stats["tx_bytes"], stats["rx_packets"], stats["rx_bytes"]) == (100, 0, 0)
            wait_until(lambda: switch.drops("p2") == {"rx_full": 1}, "the frame without a receiver to be counted")
        assert json.loads(lines.readline())["connected"] is False
    assert [p["id"] for p in switch.call("stats")["ports"]] == ["p1", "p2"]
    assert switch.call("stats", ports=["p2"])["ports"][0]["id"] == "p2"


# --- pods

@pytest.mark.release
@pytest.mark.parametrize("ring", ["split", "packed"])
@pytest.mark.parametrize("queues", [1, 2])
def test_packets_flow(directory, ring, queues):
    option = ",packed_vq=1" if ring == "packed" else ""
    with Switch(directory, queue_pairs=queues) as switch:
        switch.wait_ready()
        first, second = switch.add("p1", mac(1)), switch.add("p2", mac(2))
        with application(directory, second, "echo", queues, core=1, options=option, mode="macswap"), \
                application(directory, first, queues=queues, options=option) as app:
            app.wait_received(10000, "back and forth")
            for queue in range(queues):
                wait_until(lambda: app.counter(f"rx_q{queue}_good_packets") > 1000,
                           lambda: f"packets on queue {queue}:\n{app.log()[-3000:]}")


def test_second_connection_to_a_port_is_refused(switch):
    with pods(switch, 2) as (one, other):
        for _ in range(5):
            with FrontEnd(switch.port("p1")["socket"]) as second:
                assert second.closed()
        exchange(one, other)


def test_a_pod_that_leaves_and_comes_back(switch):
    with pods(switch, 2) as (first, other):
        first.socket.close()
        switch.wait_connected("p1", False)
        for life in range(5):
            with reconnected(switch, "p1") as one:
                exchange(one, other, f"life {life}".encode())
            switch.wait_connected("p1", False)


def test_truncated_memory_hits_its_own_port_only(switch):
    with pods(switch, 3) as (one, other, hostile):
        exchange(one, hostile, b"before")
        os.ftruncate(hostile.memory, 0)
        with contextlib.suppress(BrokenPipeError):
            one.send_to(hostile.mac, b"into nothing")
        assert hostile.closed()
        exchange(one, other, b"after")
        switch.wait_log("port p3: its pod truncated the memory it shares; dropped the connection, and closed the port "
                        "for 5 s")
        switch.wait_connected("p3", False)
        wait_until(lambda: os.path.exists(switch.port("p3")["socket"]), "the port to be open")
        with reconnected(switch, "p3") as restarted:
            exchange(one, restarted, b"again")


def test_a_port_is_removed_while_its_pod_stalls_the_switch(directory):
    """Two pollers are blocked by the same pod; the control channel answers, and the port becomes usable again."""
    with Switch(directory, "--cores", "0,1", queue_pairs=2) as switch:
        with pods(switch.wait_ready(), 3) as (one, other, hostile):
            exchange(one, hostile, b"before")
            fill(hostile.calls[0])
            for pod in (one, other):  # one poller serves both their ports
                pod.send_to(hostile.mac, b"never announced")
            start = time.monotonic()
            switch.call("remove_port", id="p3")
            assert time.monotonic() - start < 2
            assert hostile.closed()
            exchange(one, other, b"after")
            with Pod(switch.add("p3", mac(3)), mac(3)) as good:
                switch.wait_connected("p3")
                exchange(one, good, b"again")
                exchange(other, good, b"again")


def test_a_port_is_closed_for_longer_each_time(switch):
    with pods(switch, 1) as (one,):
        switch.add("p2", mac(2))
        for penalty in (5, 10):
            wait_until(lambda: os.path.exists(switch.port("p2")["socket"]), "the port to be open")
            with reconnected(switch, "p2") as hostile:
                fill(hostile.calls[0])
                one.send_to(hostile.mac, b"never announced")
                switch.wait_log(f"closed the port for {penalty} s")
        switch.call("set_port", id="p2", mac=mac(4))  # a closed port has all features of a port
        switch.call("remove_port", id="p2")
        with Pod(switch.add("p2", mac(2)), mac(2)) as good:  # and another pod's is open
            switch.wait_connected("p2")
            exchange(one, good, b"again")


def test_memory_truncated_before_the_rings_start(switch):
    with pods(switch, 2) as (one, other), FrontEnd(switch.add("p3", mac(3))) as hostile:
        hostile.negotiate()
        hostile.share()
        os.ftruncate(hostile.memory, 0)
        with contextlib.suppress(ConnectionError, AssertionError):
            hostile.start_ring(0)
            hostile.start_ring(1)
        one.send_to(mac(3), b"into nothing")
        exchange(one, other)


@pytest.mark.parametrize("end", ["remove_port", "set_port"])
def test_two_ports_with_one_address(switch, end):
    """The later port gets it; once that one is removed, or gets another, the first has its own again."""
    with pods(switch, 3) as (first, later, thief):
        switch.call("set_port", id="p2", mac=first.mac)
        thief.send_to(first.mac, b"for the later")
        assert later.wait_payload(b"for the later") == [b"for the later"]
        switch.call(end, id="p2", **({"mac": mac(2)} if end == "set_port" else {}))
        thief.send_to(BROADCAST, b"it's me", sender=first.mac)  # it moves an address that no port has
        thief.send_to(first.mac, b"for the first")
        assert first.wait_payload(b"for the first") == [b"it's me", b"for the first"]


def test_descriptors_that_are_wrong_cost_the_others_nothing(switch):
    """Frames of a megabyte, addresses outside the shared memory, and a receive ring with the same."""
    with pods(switch, 2) as (one, other), Pod(switch.add("p3", mac(3)), mac(3), size=4 << 20) as hostile:
        switch.wait_connected("p3")
        lines = len(switch.log().splitlines())
        for address, length in [(BASE, 1 << 20), (0x7000000000000000, 100), (BASE, 0xffffffff)]:
            hostile.fill_rings(address, length)
            for index in range(100):
                hostile.push_rings()
                exchange(one, other, b"%d" % index)
                one.send_to(hostile.mac)
        drops = switch.drops("p3")
        assert drops.get("too_long", 0) == switch.stats("p3")["tx_packets"], "it forwarded one that is longer than any may be"
        assert len(switch.log().splitlines()) - lines < 10, switch.log()
    assert switch.running()


def fill(eventfd):
    """The next write to it blocks until it is read."""
    os.set_blocking(eventfd, False)
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(eventfd)
    os.eventfd_write(eventfd, 2 ** 64 - 2)
    os.set_blocking(eventfd, True)


@pytest.mark.parametrize("ring", [0, 1], ids=["receiving", "sending"])
def test_a_call_eventfd_that_blocks_hits_its_own_port_only(switch, ring):
    with pods(switch, 3) as (one, other, hostile):
        exchange(one, hostile, b"before")
        fill(hostile.calls[ring])
        if ring == 0:
            one.send_to(hostile.mac, b"never announced")
        else:
            hostile.send_to(one.mac, b"never acknowledged")
        start = time.monotonic()
        exchange(one, other, b"after")
        assert time.monotonic() - start < 5, "the others were blocked far longer than the guard's 50 ms"
        assert hostile.closed()
        switch.wait_log("port p3: its pod let a call eventfd block")
        wait_until(lambda: os.path.exists(switch.port("p3")["socket"]), "the port to open again")
        with reconnected(switch, "p3") as good:
            exchange(one, good, b"again")


@pytest.mark.release
def test_idle_pods_cost_nothing(switch):
    with pods(switch, 2) as (one, other):
        exchange(one, other)
        wait_until(lambda: asleep(switch.pid), "the switch to sleep")
        ticks, start = switch.cpu_ticks(), time.monotonic()
        wait_until(lambda: time.monotonic() - start >= 5, "the end of the measurement", interval=0.5)
        assert (switch.cpu_ticks() - ticks) / TICKS < 0.01 * 5
        exchange(one, other, b"awake")


# --- the uplink

def uplink(switch):
    return next(port for port in switch.call("stats")["ports"] if port["id"] == "uplink")


KINDS = ["--uplink", "--uplink-xdp"]


@pytest.mark.parametrize("kind", KINDS)
def test_uplink(directory, kind):
    with wire() as name, Switch(directory, kind, "uplink0", wrapper=["ip", "netns", "exec", name]) as switch:
        switch.wait_ready()
        with raw_socket(name) as outside, Pod(switch.add("p1", mac(1))) as plain, \
                Pod(switch.add("p2", mac(2), vlan=7), mac(2)) as tagged:
            switch.wait_connected("p1")
            switch.wait_connected("p2")
            plain.send_to(mac(0x99), b"out plain")
            vlan, data = receive(outside, b"out plain")
            assert vlan is None and data[:14] == frame(mac(0x99), mac(1))[:14]
            tagged.send_to(BROADCAST, b"out tagged")
            vlan, data = receive(outside, b"out tagged")
            assert vlan == 7 and data[:14] == frame(BROADCAST, mac(2))[:14]

            # The kernel passes veth's tags in the frame as well as separately.
            outside.send(frame(BROADCAST, mac(0x98), b"in plain"))
            outside.send(frame(BROADCAST, mac(0x97), b"in tagged", vlan=7))
            outside.send(frame(BROADCAST, mac(0x97), b"in for nobody", vlan=8))
            outside.send(frame(mac(1), mac(0x98), b"last plain"))
            outside.send(frame(mac(2), mac(0x97), b"last tagged", vlan=7))
            assert plain.wait_payload(b"last plain") == [b"in plain", b"last plain"]
            assert tagged.wait_payload(b"last tagged") == [b"in tagged", b"last tagged"]
            assert uplink(switch)["tx_packets"] >= 5 and uplink(switch)["rx_packets"] >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_an_idle_uplink_wakes_the_switch(directory, kind):
    with wire() as name, Switch(directory, kind, "uplink0", wrapper=["ip", "netns", "exec", name]) as switch:
        switch.wait_ready()
        with raw_socket(name) as outside, Pod(switch.add("p1", mac(1))) as pod:
            switch.wait_connected("p1")
            for number in range(10):
                wait_until(lambda: asleep(switch.pid), "the switch to sleep")
                start = time.monotonic()
                outside.send(frame(mac(1), mac(0x99), b"wake %d" % number))
                pod.wait_payload(b"wake %d" % number)
                if time.monotonic() - start < 0.5:  # half of the time that a sleeping poller needs if nothing wakes it
                    break
            else:
                raise AssertionError("no frame from outside woke it")


def test_a_burst_from_outside_fills_the_room_that_a_ring_has(directory):
    """The frames come in several bursts, and none is lost between them."""
    with wire() as name, Switch(directory, "--uplink", "uplink0", wrapper=["ip", "netns", "exec", name]) as switch:
        switch.wait_ready()
        with raw_socket(name) as outside, Pod(switch.add("p1", mac(1))) as pod:
            switch.wait_connected("p1")
            pod.post(128)
            suspend(switch.pid)
            for number in range(128):
                outside.send(frame(mac(1), mac(0x99), b"%d of a burst" % number))
            os.kill(switch.pid, signal.SIGCONT)
            wait_until(lambda: uplink(switch)["tx_packets"] == 128, "all frames to be taken")
            wait_until(lambda: switch.stats("p1")["rx_packets"] + switch.drops("p1").get("rx_full", 0) == 128,
                       lambda: switch.stats("p1"))
            assert switch.drops("p1") == {} and pod.received() == 128


def test_frames_that_the_uplink_refuses_are_drops_alone(directory):
    """Frames to an uplink that is down fill its ring."""
    with wire() as name, Switch(directory, "--uplink", "uplink0", wrapper=["ip", "netns", "exec", name]) as switch:
        switch.wait_ready()
        with Pod(switch.add("p1", mac(1))) as pod:
            switch.wait_connected("p1")
            subprocess.run(["ip", "-n", name, "link", "set", "uplink0", "down"], check=True)
            for _ in range(1000):  # the ring has 512 entries
                pod.send_to(BROADCAST, size=100)
            wait_until(lambda: uplink(switch)["rx_packets"] + uplink(switch)["drops"]["rx_full"] == 1000,
                       lambda: f"all frames to be counted: {uplink(switch)}")
            counted = uplink(switch)
            assert counted["drops"]["rx_full"] > 0
            assert counted["rx_bytes"] == 100 * counted["rx_packets"]


def udp(to, sender, port, payload):
    """An Ethernet frame whose flow depends on `port`."""
    body = bytes.fromhex("4500") + (28 + len(payload)).to_bytes(2, "big") + bytes.fromhex(
        "00000000401100000a0000010a000002") + port.to_bytes(2, "big") * 2 + (8 + len(payload)).to_bytes(2, "big")
    return frame(to, sender)[:12] + b"\x08\x00" + body + b"\0\0" + payload


@pytest.mark.parametrize("other", ["busy", "idle"])
def test_every_poller_wakes_for_its_frames_from_outside(directory, other):
    """The uplink's flows are spread over the pollers; frames for one poller wake it even if the other is busy."""
    with wire() as name, Switch(directory, "--uplink", "uplink0", "--cores", "0,1",
                                wrapper=["ip", "netns", "exec", name]) as switch, contextlib.ExitStack() as stack:
        sender, path = switch.wait_ready().add("p1", mac(1)), switch.add("p2", mac(2))
        switch.add("p3", mac(3))  # no pod is connected, but the address is known
        outside = stack.enter_context(raw_socket(name))
        pod = stack.enter_context(Pod(path, mac(2)))
        switch.wait_connected("p2")
        if other == "busy":
            stack.enter_context(application(directory, sender, mode="txonly", arguments=[f"--eth-peer=0,{mac(3)}"]))
            wait_until(lambda: switch.stats("p1")["tx_packets"] > 10000, "a busy poller")

        def seconds(port, number):
            payload = b"flow %d, frame %d" % (port, number)
            start = time.monotonic()
            outside.send(udp(mac(2), mac(0x99), port, payload))
            wait_until(lambda: any(payload in data for data in pod.take()), payload, interval=0.001)
            return time.monotonic() - start
        # A poller that is not woken polls every second: right after such a poll, the next frame waits for a whole second. One
        # of several frames may be late for another reason.
        slowest = max(min(seconds(port, number) for number in range(5)) for port in range(2000, 2030))
        assert slowest < 0.5, "the frames of a flow woke no poller"


def test_the_socket_of_a_killed_switch_goes_with_the_next_one(directory):
    with Switch(directory) as switch:
        left = pathlib.Path(switch.wait_ready().add("p1", mac(1)))
        switch.kill()
        assert left.exists()
    with Switch(directory):
        wait_until(lambda: not left.exists(), "a socket without a port to be removed")
