"""vdpactl capture on a real node: both directions, what is dropped, and readers that are slow, stopped or gone."""

import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from captures import INBOUND, OUTBOUND, Capture, parse
from datapath import owner
from fake_datapath import FakeDatapath
from neighbour import VERSION, supervised
from pod import COUNT, exchange, frame, mac
from rpc import control, datapath
from support import ROOT, suspend, wait_until
from switched_node import node, running  # noqa: F401 (a fixture)
from vdpactl import PROGRAM, command, run

CONTROL = "run/switches/vdpa.io-nic/control.sock"


def started(node):
    node.datapath.wait_log("the frames of port nic-0 are being captured")


def ended(node):
    node.datapath.wait_log("the frames of port nic-0 are no longer captured")


def addresses(shown):
    """Of tcpdump's lines, without those of a frame's content."""
    return [line[:37] for line in shown.splitlines() if " > " in line[:37]]


def test_both_directions(node, directory):
    one, other = node.pods(2)
    exchange(one, other)
    before = time.time()
    with Capture(directory, "nic-0", "-c", 4) as capture:
        capture.wait_running()
        assert capture.file.stat().st_mode & 0o777 == 0o600
        long = frame(other.mac, one.mac, bytes(range(256)) * 5)
        one.push(long)
        other.send_to(one.mac, b"back")
        other.send_to("02:00:00:00:00:77", b"to everybody")
        one.send_to(other.mac, b"last")
        found = capture.result()
        assert (found.name, found.description, found.snap_length) == ("nic-0", "net1 of c0", 65535)
        assert found.sent() == [long, frame(other.mac, one.mac, b"last")]
        assert found.got() == [frame(one.mac, other.mac, b"back"), frame("02:00:00:00:00:77", other.mac, b"to everybody")]
        assert [f.inbound for f in found.frames] == [False, True, True, False]
        times = [f.time for f in found.frames]
        assert times == sorted(times) and before - 0.1 < times[0] and times[-1] < time.time() + 0.1, (before, times)
        assert found.dropped == 0
    ended(node)
    shown = subprocess.run(["tcpdump", "-r", capture.file, "-nn", "-e", "-t"], capture_output=True, text=True, check=True)
    assert "EN10MB (Ethernet), snapshot length 65535" in shown.stderr, shown.stderr
    assert addresses(shown.stdout) == [
        f"{mac(0)} > {mac(1)}", f"{mac(1)} > {mac(0)}", f"{mac(1)} > 02:00:00:00:00:77", f"{mac(0)} > {mac(1)}"]


def test_what_is_dropped_has_its_reason(node, directory):
    one = node.pod(0, spoof_check=True, vlan_trunk="7")
    other = node.pod(1, vlan=7)
    with Capture(directory, "nic-0") as capture:
        capture.wait_running()
        sent = [frame(other.mac, mac(9), b"spoofed", vlan=7), frame(other.mac, one.mac, b"untagged"),
                frame(other.mac, one.mac, b"another VLAN", vlan=8), b"short", b"",
                frame(other.mac, one.mac, b"long", vlan=7, size=1600), frame(other.mac, one.mac, b"good", vlan=7)]
        one.push(*sent)
        assert other.wait_payload(b"good") == [b"good"]
        found = capture.end()
        assert [f.data for f in found.frames] == sent
        assert found.comments() == ["dropped: spoofed", "dropped: vlan", "dropped: vlan", "dropped: runt", "dropped: runt",
                                    "dropped: too_long", ""]
        assert node.control.drops("nic-0") == {"spoofed": 1, "vlan": 2, "runt": 2, "too_long": 1}


def test_what_a_pod_does_not_receive(node, directory):
    one, other = node.pods(2)
    with Capture(directory, "nic-1", "--snaplen", 20) as capture:
        capture.wait_running()
        for number in range(COUNT + 3):   # as many as have buffers, and three
            one.send_to(other.mac, bytes([number]))
        found = capture.end()
        assert found.comments() == [""] * COUNT + ["dropped: rx_full"] * 3
        assert all(f.inbound and f.length == 60 for f in found.frames)
        assert [f.data for f in found.frames] == [frame(other.mac, one.mac, bytes([n]))[:20] for n in range(COUNT + 3)]
        assert len(other.take()) == COUNT


def test_a_pipe(node, directory):
    one, other = node.pods(2)
    capture = subprocess.Popen(command(directory, "capture", "nic-0"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with subprocess.Popen(["tcpdump", "-r", "-", "-nn", "-t", "-e", "-c", "2"], stdin=capture.stdout, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as shown:
        capture.stdout.close()
        started(node)
        one.send_to(other.mac, b"1")
        other.send_to(one.mac, b"2")
        out, _ = shown.communicate(timeout=20)
    assert addresses(out) == [f"{mac(0)} > {mac(1)}", f"{mac(1)} > {mac(0)}"]
    assert capture.wait(20) == 0   # without another frame
    assert b"2 frames captured, 0 dropped by the capture" in capture.stderr.read()


def test_tshark_shows_why_a_frame_was_dropped_and_both_directions(node, directory):
    one, other = node.pods(2)
    documented = re.search(r"\| (tshark .*)", (ROOT / "deviceplugin/ctl/README.md").read_text())[1].split()
    capture = subprocess.Popen(command(directory, "capture", "nic-0", "-c", "3"), stdout=subprocess.PIPE)
    with subprocess.Popen([*documented, "-e", "frame.packet_flags_direction"], stdin=capture.stdout, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as shown:
        capture.stdout.close()
        started(node)
        one.send_to(other.mac, b"1")
        other.send_to(one.mac, b"2")
        one.push(b"short")
        out, error = shown.communicate(timeout=60)
    frames = [line.split("\t") for line in out.splitlines()]
    assert [frame[:2] for frame in frames] == [["1", ""], ["2", ""], ["3", "dropped: runt"]], error
    assert [int(frame[2], 16) for frame in frames] == [OUTBOUND, INBOUND, OUTBOUND], "as the pod sees them"
    assert capture.wait(20) == 0


def test_a_killed_reader_ends_the_capture(node, directory):
    one, other = node.pods(2)
    with Capture(directory, "nic-0") as capture:
        capture.wait_running()
        refused = run(directory, "capture", "nic-0", "-w", directory / "second")
        assert refused.returncode == 1
        assert "port nic-0 is being captured already: end that vdpactl capture first" in refused.stderr
        capture.kill()
    ended(node)
    exchange(one, other)
    with Capture(directory, "nic-0") as capture:   # nothing is left of the first
        capture.wait_running()
        exchange(one, other)
        assert len(capture.end().frames) == 2


@pytest.mark.packets
def test_a_stopped_reader_costs_frames_of_the_capture_alone(node, directory):
    for number in range(2):
        node.attach(number)
    node.pair(size=1400)
    wait_until(lambda: node.control.stats("nic-0")["rx_packets"] > 1000, "traffic")
    with Capture(directory, "nic-0", "--snaplen", 1000) as capture:
        capture.wait_running()
        capture.wait_bytes(100000)
        suspend(capture.pid)
        start = node.control.stats("nic-0")["rx_packets"]
        # Both ways more than its ring of 8 MiB has room for.
        wait_until(lambda: node.control.stats("nic-0")["rx_packets"] > start + 8000, "traffic beside a stopped reader")
        capture.process.send_signal(signal.SIGCONT)
        found = capture.end()
        assert found.dropped > 5000, found.dropped
        assert all(len(f.data) == min(1000, f.length) for f in found.frames)
        assert {f.inbound for f in found.frames} == {True, False}


def test_a_program_behind_the_pipe_that_does_not_read(node, directory):
    """It gets all when it reads again, also what came before the end; and a second signal ends vdpactl without it."""
    one, other = node.pods(2)
    for reads in (True, False):
        read, write = os.pipe()
        with subprocess.Popen(command(directory, "capture", "nic-0"), stdout=write, stderr=subprocess.PIPE) as capture:
            os.close(write)
            wait_until(lambda: select.select([read], [], [], 0)[0], "the capture")
            for number in range(80):   # more than a pipe has room for
                one.push(frame(other.mac, one.mac, bytes([number]), size=1500))
                other.take()
            capture.terminate()
            if reads:
                with os.fdopen(read, "rb") as pipe:
                    found = parse(pipe.read())
                assert [f.data[14] for f in found.frames] == list(range(80)) and found.received == 80
            else:
                wait_until(lambda: capture.poll() is not None or capture.terminate(), "the end")
                os.close(read)
            assert capture.wait(20) == (0 if reads else 1)
            error = capture.stderr.read()
            assert b"80 frames captured" in error and (b"are not written: nobody reads them" in error) != reads, error


@pytest.mark.parametrize("stream", ["stdin", "stderr"])
def test_whoever_has_started_a_capture_to_a_file_is_gone(node, directory, stream):
    one, other = node.pods(2)
    file = directory / "nic-0.pcapng"
    with subprocess.Popen(command(directory, "capture", "nic-0", "-w", file), stdin=subprocess.PIPE,
                          stderr=subprocess.PIPE) as capture:
        started(node)
        exchange(one, other)
        getattr(capture, stream).close()
        assert capture.wait(20) == 0
    assert len(parse(file.read_bytes()).frames) == 2
    ended(node)


def test_limits_of_time_and_size(node, directory):
    one, other = node.pods(2)
    with Capture(directory, "nic-0", "--seconds", 1) as capture:
        capture.wait_running()
        exchange(one, other)
        assert len(capture.result().frames) == 2
    with Capture(directory, "nic-0", "--max-size", 1) as capture:
        capture.wait_running()
        while capture.process.poll() is None:
            one.push(frame(other.mac, one.mac, b"x", size=1500))
            other.take()
        assert 1 << 20 <= capture.file.stat().st_size < 3 << 20
        capture.result()
        assert "ended, as the file has 1 MiB (--max-size)" in capture.log()


def test_the_file_of_a_capture(node, directory):
    one, other = node.pods(2)
    file = directory / "nic-0.pcapng"

    def refused(*more):
        done = run(directory, "capture", *more, "-w", file)
        assert done.returncode == 1, done
        return done.stderr
    file.write_text("kept")
    file.chmod(0o644)
    with Capture(directory, "nic-1") as capture:
        capture.wait_running()
        assert "is being captured already" in run(directory, "capture", "nic-1", "-w", file).stderr
        assert file.read_text() == "kept" and file.stat().st_mode & 0o777 == 0o600
    os.chown(file, 65534, 65534)
    assert "it belongs to user 65534" in refused("nic-0")
    os.chown(file, 0, 0)
    target = file.rename(directory / "target")
    file.symlink_to(target)
    assert "it is a link; name the file itself" in refused("nic-0")
    assert target.read_text() == "kept"
    done = subprocess.run(command(directory, "capture", "nic-0", "--seconds", "1", "-w", "/dev/stdout"), capture_output=True,
                          timeout=20, check=True)
    assert not parse(done.stdout).frames


def test_the_end_of_the_port_is_the_end_of_the_capture(node, directory):
    one, other = node.pods(2)
    with Capture(directory, "nic-0") as capture:
        capture.wait_running()
        exchange(one, other)
        assert node.datapath.detach(owner("c0"))
        found = capture.result(status=1)
        assert "the capture has ended: nic-0 was detached, or its switch was restarted" in capture.log()
        assert len(found.frames) == 2


def test_several_pollers(directory):
    with running(directory, queue_pairs=2, cores="0-1") as node:
        one, other = node.pods(2)
        with Capture(directory, "nic-0") as capture, Capture(directory, "nic-1") as second:
            capture.wait_running()
            second.wait_running()
            for number in range(20):
                exchange(one, other, bytes([number]))
            found, mirrored = capture.end(), second.end()
        assert found.sent() == mirrored.got() and found.got() == mirrored.sent()
        assert len(found.sent()) == len(found.got()) == 20


def test_what_can_not_be_captured(node, directory):
    def refused(*arguments):
        done = run(directory, "capture", *arguments)
        assert done.returncode != 0 and not done.stdout
        return done.stderr
    file = directory / "file"
    assert "device nic-0 is not attached; see vdpactl attachments" in refused("nic-0", "-w", file)
    assert "this node has no device nic-9; see vdpactl devices" in refused("nic-9", "-w", file)
    node.attach(0)
    assert "cannot write /nowhere/file" in refused("nic-0", "-w", "/nowhere/file")
    assert "--snaplen" in refused("nic-0", "-w", file, "--snaplen", "0")
    assert "-c" in refused("nic-0", "-w", file, "-c", "0")
    directory.chmod(0o755)
    done = run(directory, "capture", "nic-0", "-w", file, user=65534, group=65534, extra_groups=[])
    assert done.returncode == 1 and "run vdpactl as root" in done.stderr, done
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(PROGRAM, [str(word) for word in command(directory, "capture", "nic-0")])
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        assert b"a capture is not for a terminal: give -w FILE" in screen.read(1000)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1   # while there is a terminal: its end would kill it


class Listing(FakeDatapath):
    """Has attachments alone."""

    def __init__(self, directory, *attachments):
        super().__init__(directory)
        self._attachments = attachments

    def List(self, request, context):
        return datapath.ListResponse(attachments=self._attachments)


def test_a_device_of_hardware(directory):
    attachment = datapath.Attachment(device_id="0000:65:00.2", backend="kernel", owner=owner("c0"))
    listing = Listing(directory, attachment).start()
    done = run(directory, "capture", "0000:65:00.2", "-w", directory / "file")
    listing.stop()
    assert done.returncode == 1 and "device 0000:65:00.2 has the backend kernel" in done.stderr
    assert "only ports of the software switch can be captured" in done.stderr


def test_a_switch_of_the_previous_release(directory):
    attachment = datapath.Attachment(device_id="nic-0", resource="vdpa.io/nic", backend="software", owner=owner("c0"))
    listing = Listing(directory, attachment).start()
    (directory / CONTROL).parent.mkdir(parents=True)
    with supervised("vdpa-switch", "vdpa.io-nic", directory / CONTROL, directory):
        done = run(directory, "capture", "nic-0", "-w", directory / "file")
    listing.stop()
    assert done.returncode == 1
    assert f"the switch of vdpa.io/nic is vdpa-switch {VERSION}, which can't capture" in done.stderr, done


def test_a_switch_that_breaks_the_rules(directory):
    """A switch reads what pods write: vdpactl believes nothing in the memory that they share."""
    attachment = datapath.Attachment(device_id="nic-0", resource="vdpa.io/nic", backend="software", owner=owner("c0"))
    listing = Listing(directory, attachment).start()
    (directory / CONTROL).parent.mkdir(parents=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(directory / CONTROL))
    server.listen()

    def serve():
        server.accept()[0].close()   # to see whether it is there
        client, _ = server.accept()
        request = json.loads(client.makefile().readline())
        client.sendall(json.dumps({"id": request["id"], "ok": {
            "program": "vdpa-switch", "version": "0.2.0", "frames": True}}).encode() + b"\n")
        data, descriptors, _, _ = socket.recv_fds(client, 65536, 16)
        asked = control.Request.FromString(data[5:])
        answer = control.FromProcess(answer=control.Answer(id=asked.id, capturing=control.Capturing(drop_reasons=["x"])))
        os.pwrite(descriptors[asked.capture.memory.index], struct.pack("<Q", 1 << 40), 0)
        answer = answer.SerializeToString()
        client.sendall(struct.pack(">IB", len(answer), 0) + answer)
        client.recv(1)
    thread = threading.Thread(target=serve)
    thread.start()
    done = run(directory, "capture", "nic-0", "-w", directory / "file")
    thread.join()
    server.close()
    listing.stop()
    assert done.returncode == 1 and "the switch claims 1099511627776 bytes in a capture's ring" in done.stderr, done
