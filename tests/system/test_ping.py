"""vdpa-ping: two pods try their devices, through a real vdpa-datapath, its workers and the engine behind them."""

import json
import signal
import subprocess
import time

import pytest

from pod import mac
from support import BUILD, Program, wait_until
from switched_node import node  # noqa: F401 (a fixture)

pytestmark = pytest.mark.packets
PROGRAM = BUILD / "deviceplugin/ping/vdpa-ping"


def command(node, device, *arguments):
    return [str(word) for word in (PROGRAM, "--run-dir", node.datapath.path(""), "--device", device, *arguments)]


def measure(node, *arguments, check=True):
    return subprocess.run(command(node, "nic-0", "measure", *arguments), capture_output=True, text=True, timeout=60,
                          check=check)


@pytest.fixture
def pair(node):
    """Devices of two pods, and a program that answers on the second."""
    for number in range(2):
        node.attach(number)
    with Program("answer", command(node, "nic-1", "answer"), node.datapath.directory) as answerer:
        answerer.wait_log(f"{mac(1)} answers on nic-1")
        yield node, answerer


def test_it_measures_what_the_switch_counts(pair):
    node, answerer = pair
    found = json.loads(measure(node, "--count=200", "--seconds=1.5", "--size=128", "-o", "json").stdout)
    assert (found["peer"], found["device"], found["frameBytes"]) == (mac(1), "nic-0", 128)
    assert found["requests"] == found["answers"] == 200
    assert 0 < found["medianUs"] <= found["p99Us"] <= found["worstUs"]
    counted = node.control.stats("nic-1")
    # Besides the data there are requests: one for each answer, one or more for each count, and those of the search.
    assert 0 < counted["rx_packets"] - found["received"] - 200 < 500
    assert 0 < found["received"] <= found["sent"]
    assert found["receivedPerSecond"] * 0.5 < found["received"] < found["receivedPerSecond"] * 3
    node.control.wait_connected("nic-0", False)
    assert answerer.running(), "and it answers the next one"
    again = json.loads(measure(node, "--count=5", "--seconds=0.5", f"--peer={mac(1)}", "-o", "json").stdout)
    assert 0 < again["received"] <= again["sent"], "without the frames of the first time"


def test_its_words(pair):
    text = measure(pair[0], "--count=5", "--seconds=0.5").stdout
    assert f"{mac(1)} answers on nic-0" in text and "5 of 5 requests" in text and "frames/s of 64 bytes each" in text


def test_nobody_answers(node):
    for number in range(2):
        node.attach(number)
    done = measure(node, f"--peer={mac(1)}", "--timeout=0.3", check=False)
    assert done.returncode == 1
    assert f"vdpa-ping: nobody answers {mac(1)} from nic-0" in done.stderr and "the same network" in done.stderr


def test_a_receiver_sleeps_until_frames_come(pair):
    _, answerer = pair

    before, end = answerer.cpu_ticks(), time.monotonic() + 1.5
    wait_until(lambda: time.monotonic() > end, "a while without frames")
    assert answerer.cpu_ticks() - before <= 2


def test_endless_sending_ends_with_the_signal(pair):
    node, answerer = pair
    with Program("send", command(node, "nic-0", "send"), node.datapath.directory) as sender:
        sender.wait_log("the receiver counts ")
        answerer.wait_log("received ")
        sender.process.send_signal(signal.SIGTERM)
        assert sender.process.wait(10) == 0


def test_a_sender_keeps_to_its_rate(pair):
    node, answerer = pair
    with Program("send", command(node, "nic-0", "send", "--rate=20000"), node.datapath.directory) as sender:
        sender.wait_log("the receiver counts ")
        start, before = time.monotonic(), node.control.stats("nic-1")["rx_packets"]
        wait_until(lambda: time.monotonic() > start + 2, "a while with frames")
        sent, took = node.control.stats("nic-1")["rx_packets"] - before, time.monotonic() - start
        # Besides the data there are up to a hundred questions a second. A busy machine may hold the sender up.
        assert 2000 < sent / took < 21000
    node.control.wait_connected("nic-0", False)
    assert answerer.running()


def test_a_frame_longer_than_the_mtu_allows_is_refused(pair):
    done = measure(pair[0], "--size=2000", check=False)
    assert done.returncode == 1
    assert "--size 2000: nic-0 has an MTU of 1500, so frames of at most 1518" in done.stderr
