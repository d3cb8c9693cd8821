"""vdpactl with a real vdpa-datapath: tables for people, JSON for programs, and error messages."""

import contextlib
import json
import os
import pathlib
import pty
import signal
import subprocess

import pytest

from datapath import Datapath, broken_switches, delete_namespace, network_namespace, owner, settings
from kubelet import PodResources
from support import Program, wait_until
from testpmd import Testpmd
from vdpactl import PROGRAM, as_json, command, output, run, table


@pytest.fixture
def datapath(directory):
    with Datapath(directory) as datapath:
        yield datapath.wait_serving().offer(3).wait_healthy()


def test_devices(datapath, directory):
    datapath.attach(owner("c1", pod="web"), "nic-0")
    datapath.attach(owner("c2"), "nic-1")  # from a caller other than Kubernetes
    assert table(directory, "devices") == {
        device: {"DEVICE": device, "RESOURCE": "vdpa.io/nic", "HEALTH": "Healthy", "POD": pod, "REASON": "-"}
        for device, pod in [("nic-0", "default/web"), ("nic-1", "c2"), ("nic-2", "-")]}
    assert as_json(directory, "devices")["nic-0"] == {
        "device": "nic-0", "resource": "vdpa.io/nic", "healthy": True, "reason": "", "pod": "default/web"}


def test_unhealthy_devices_have_a_reason(directory):
    with Datapath(directory, worker_dirs=broken_switches(directory)) as datapath:
        datapath.wait_serving().offer(1)
        wait_until(lambda: "status 3" in datapath.device().reason, "the reason")
        row = table(directory, "devices")["nic-0"]
        assert row["HEALTH"] == "Unhealthy" and "vdpa-switch of vdpa.io/nic" in row["REASON"], row
        assert "exited with status 3" in row["REASON"]
        assert as_json(directory, "devices")["nic-0"]["healthy"] is False


def test_nothing_to_show(directory):
    with Datapath(directory) as datapath:
        datapath.wait_serving()
        assert "vdpa-device-plugin has not reported any" in output(directory, "devices")
        assert output(directory, "attachments") == "no attachments\n"
        assert output(directory, "stats") == "no attached devices\n"
        for what in ("devices", "attachments", "stats"):
            assert as_json(directory, what) == {}


def test_attachments(datapath, directory):
    asked = settings(mac="02:00:00:00:00:07", vlan=12, mtu=1400, spoof_check=True, link_state="disable")
    datapath.attach(owner("c1", "net7", pod="web"), "nic-0", asked, ["10.0.0.5/24", "fd00::5/64"])
    row = table(directory, "attachments")["nic-0"]
    assert row.pop("AGE").endswith("s")
    assert row == {"DEVICE": "nic-0", "POD": "default/web", "CONTAINER": "c1", "INTERFACE": "net7", "NETWORK": "fast",
                   "MAC": "02:00:00:00:00:07", "VLAN": "12", "SETTINGS": "mtu=1400,spoofchk=on,link_state=disable",
                   "STATE": "waiting", "OUTLOOK": "-"}
    found = as_json(directory, "attachments")["nic-0"]
    created = found.pop("created")
    assert created == datapath.attachment().created
    assert found == {
        "device": "nic-0", "resource": "vdpa.io/nic", "backend": "software", "namespace": "default", "pod": "web",
        "container": "c1", "interface": "net7", "network": "fast", "netns": "/proc/self/ns/net",
        "mac": "02:00:00:00:00:07", "vlan": 12, "mtu": 1400,
        "vlanQoS": 0, "vlanProto": "802.1q", "spoofchk": True, "trust": False, "link_state": "disable", "min_tx_rate": 0,
        "max_tx_rate": 0, "vlanTrunk": "", "max_rx_rate": 0, "burst": 0, "ips": ["10.0.0.5/24", "fd00::5/64"],
        "socket": "/run/vdpa/nic-0/vhost.sock", "attached": True, "state": "waiting",
        "outlook": "", "workerVersion": output(directory, "--version").strip()}


@pytest.mark.parametrize("asked, vlans", [
    ({"vlan_trunk": "200,100-110", "vlan": 7}, "7,trunk:100-110,200"), ({"vlan_trunk": "5"}, "trunk:5")])
def test_attachments_with_a_trunk_and_rates(datapath, directory, asked, vlans):
    datapath.attach(owner(), "nic-0", settings(max_rx_rate=20, burst=64, **asked))
    row = table(directory, "attachments")["nic-0"]
    assert (row["VLAN"], row["SETTINGS"]) == (vlans, "mtu=1500,link_state=enable,max_rx_rate=20,burst=64")
    found = as_json(directory, "attachments")["nic-0"]
    assert (found["vlan"], found["vlanTrunk"], found["max_rx_rate"], found["burst"]) == (
        asked.get("vlan", 0), vlans.rpartition(":")[2], 20, 64)


def test_what_becomes_of_an_attachment(datapath, directory):
    with network_namespace() as netns, PodResources(directory):
        datapath.attach(owner("c1", netns=netns, pod="web"), "nic-0")
        delete_namespace(netns)
        wait_until(lambda: table(directory, "attachments")["nic-0"]["OUTLOOK"].startswith("abandoned: detached in "),
                   lambda: output(directory, "attachments"))
        assert as_json(directory, "attachments")["nic-0"]["outlook"].startswith("abandoned: detached in ")


def test_detach_of_an_owner_that_is_gone(datapath, directory):
    with network_namespace() as netns:
        datapath.attach(owner("c1", netns=netns, pod="web"), "nic-0")
        datapath.attach(owner("c2" * 32, netns=netns), "nic-1")
        for what, who in ((["nic-0"], "default/web (container c1, interface net1)"),
                          (["c2c2", "net1"], "container c2c2c2c2c2c2…, interface net1")):
            done = run(directory, "detach", *what)
            assert done.returncode == 1 and not done.stdout
            assert who in done.stderr and "network namespace still exists" in done.stderr, done
            assert "--force" in done.stderr
        assert len(datapath.list().attachments) == 2
        done = run(directory, "detach", "c", "net1")
        assert done.returncode == 1 and "2 containers begin with c" in done.stderr
        delete_namespace(netns)
        assert output(directory, "detach", "nic-0") == "detached nic-0 from default/web, container c1, interface net1\n"
        assert output(directory, "detach", "c2c2", "net1") == (
            f"detached nic-1 from container {'c2' * 32}, interface net1\n")
        assert not datapath.list().attachments
    done = run(directory, "detach", "nic-0")
    assert done.returncode == 1 and "device nic-0 is not attached" in done.stderr
    done = run(directory, "detach", "c2", "net1")
    assert done.returncode == 1 and "interface net1 of container c2 has no device" in done.stderr


def test_detach_by_force_asks(datapath, directory):
    datapath.attach(owner("c1", pod="web"), "nic-0")
    done = run(directory, "detach", "--force", "nic-0", stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and "add --yes" in done.stderr and datapath.attachment()

    def answer(text):
        """The output and the exit status for a person at a terminal."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(PROGRAM, [str(word) for word in command(directory, "detach", "--force", "nic-0")])
        seen = b""
        with os.fdopen(terminal, "r+b", buffering=0) as screen:
            while b"to continue: " not in seen:
                seen += screen.read(1000)
            screen.write(text)
            with contextlib.suppress(OSError):  # the terminal closes with the program
                while more := screen.read(1000):
                    seen += more
        return seen.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    for refusal in (b"\n", b"no\n", b"y\n", b"\x04"):
        seen, status = answer(refusal)
        assert status == 1 and "nothing was done" in seen, seen
        assert "detaches nic-0 from default/web, container c1, interface net1 (waiting)" in seen
        assert datapath.attachment()
    seen, status = answer(b"yes\n")
    assert status == 0 and "detached nic-0 from default/web" in seen, seen
    assert datapath.attachment() is None

    datapath.attach(owner("c1", pod="web"), "nic-0")
    assert run(directory, "detach", "--force", "--yes", "c1", "net1", stdin=subprocess.DEVNULL).returncode == 0
    assert datapath.attachment() is None and "nic-0" not in datapath.processes()


def test_device_held_but_not_attached(datapath, directory):
    with PodResources(directory) as kubelet:
        kubelet.pods = {("default", "web"): ("vdpa.io/nic", ["nic-0"]),
                        ("other", "plain"): ("vdpa.io/nic", ["nic-1"]),
                        ("other", "gpu"): ("example.com/gpu", ["nic-2"])}  # another vendor's device of that name
        datapath.attach(owner(pod="web"), "nic-0")
        rows = table(directory, "attachments")
        assert rows.keys() == {"nic-0", "nic-1"}
        assert rows["nic-0"]["STATE"] == "waiting"
        assert rows["nic-1"]["POD"] == "other/plain"
        words = "held by other/plain, not attached: no network annotation?"
        assert rows["nic-1"]["STATE"] == words
        assert as_json(directory, "attachments")["nic-1"] == {
            "device": "nic-1", "resource": "vdpa.io/nic", "namespace": "other", "pod": "plain", "attached": False,
            "state": words}


def test_attachments_without_a_kubelet(datapath, directory):
    datapath.attach(owner())
    done = run(directory, "attachments", "-o", "json")
    assert done.returncode == 0 and [item["device"] for item in json.loads(done.stdout)] == ["nic-0"]
    assert f"{directory}/pods.sock" in done.stderr and "held but not attached are not shown" in done.stderr


@contextlib.contextmanager
def traffic(datapath, directory):
    """nic-0 sends to nic-1; nic-2 sends too, but with addresses that its spoof check refuses."""
    vdevs = {}
    for number, values in enumerate([{}, {}, {"spoof_check": True}]):
        device = f"nic-{number}"
        datapath.attach(owner(f"c{number}", f"net{number}"), device, settings(**values))
        # As the pod gets it, except for the mount point of the directory.
        line = datapath.path(device, "eal-args").read_text().strip()
        assert line.startswith("--vdev=") and line.count("/run/vdpa/") == 1, line
        vdevs[device] = line.removeprefix("--vdev=").replace("/run/vdpa/", f"{datapath.run_dir}/devices/")
    with Testpmd("receiver", directory, [vdevs["nic-1"]], "rxonly", core=1) as receiver, \
            Testpmd("sender", directory, [vdevs["nic-0"], vdevs["nic-2"]], "flowgen"):
        receiver.wait_received(1000, "from nic-0")
        yield


def readings(watch):
    """The packets that nic-1 has received so far, and their rate per second."""
    rows = [line.split() for line in watch.log().splitlines() if line.startswith("nic-1 ")]
    return [(int(row[1]), int(row[5])) for row in rows if len(row) > 5]


@pytest.mark.packets
def test_stats_under_traffic(datapath, directory):
    with traffic(datapath, directory):
        wait_until(lambda: as_json(directory, "stats")["nic-2"]["drops"].get("spoofed", 0) > 100, "spoofed packets")
        first = as_json(directory, "stats")
        assert first.keys() == {"nic-0", "nic-1", "nic-2"}
        assert first["nic-0"]["tx_packets"] >= 1000 and first["nic-1"]["rx_packets"] >= 1000
        assert first["nic-1"]["rx_bytes"] >= 60 * first["nic-1"]["rx_packets"]
        assert first["nic-1"]["tx_packets"] == 0
        row = table(directory, "stats")["nic-2"]
        assert "spoofed=" in row["DROPS"], row
        assert row.keys() == {"DEVICE", "RX-PACKETS", "RX-BYTES", "TX-PACKETS", "TX-BYTES", "DROPS"}

        with Program("watch", command(directory, "stats", "--watch", "--interval", "0.2"), directory) as watch:
            # If other programs need the receiver's core, it may receive nothing for a whole reading.
            wait_until(lambda: len({packets for packets, _ in readings(watch)}) >= 3, watch.log)
            found = readings(watch)
            for (before, _), (packets, rate) in zip(found, found[1:]):
                assert packets >= before and (rate > 0) == (packets > before), found
    with Program("idle", command(directory, "stats", "--watch", "--interval", "0.2"), directory) as watch:
        wait_until(lambda: readings(watch), watch.log)
        packets, rate = readings(watch)[0]
        assert packets >= 1000 and rate == 0, watch.log()


def test_watch_in_json_is_one_line_a_reading_and_ends_at_once(datapath, directory):
    datapath.attach(owner())
    with Program("watch", command(directory, "stats", "--watch", "--interval", "0.1", "-o", "json"),
                 directory) as watch:
        wait_until(lambda: watch.log().count("\n") >= 2, watch.log)
        for line in watch.log().splitlines()[:2]:
            assert json.loads(line)[0]["device"] == "nic-0"
    with Program("slow", command(directory, "stats", "--watch", "--interval", "3600"), directory) as watch:
        stack = pathlib.Path(f"/proc/{watch.pid}/task/{watch.pid}/wchan")
        wait_until(lambda: "nanosleep" in stack.read_text(), lambda: f"the long pause: {stack.read_text()}")
        watch.process.send_signal(signal.SIGTERM)
        watch.process.wait(5)


def test_without_a_datapath(directory):
    for what in (["devices"], ["attachments"], ["stats"], ["detach", "nic-0"]):
        done = run(directory, *what)
        assert done.returncode == 1 and not done.stdout
        assert f"{directory}/run/datapath.sock" in done.stderr
        assert "is vdpa-datapath running on this node?" in done.stderr


def test_as_an_ordinary_user(datapath, directory):
    directory.chmod(0o755)
    done = run(directory, "devices", user=65534, group=65534, extra_groups=[])
    assert done.returncode == 1 and "run vdpactl as root" in done.stderr, done


def test_probe(datapath, directory):
    socket = directory / "run/datapath.sock"
    done = run(directory, "probe", socket)
    assert done.returncode == 0 and done.stdout == f"{socket}: SERVING\n"
    done = run(directory, "probe", socket, "--service", "nobody.Here")
    assert done.returncode == 1 and str(socket) in done.stderr
    datapath.stop()
    done = run(directory, "probe", socket)
    assert done.returncode == 1 and str(socket) in done.stderr


@pytest.mark.parametrize("arguments, words", [
    (["devices", "--output", "yaml"], ["--output", "json", "table"]),
    (["stats", "--watch", "--interval", "0"], ["--interval"]),
    (["nonsense"], ["subcommand"]),
    (["detach"], ["what"]),
    (["detach", "a", "b", "c"], ["c"]),
    ([], ["subcommand"]),
])
def test_wrong_arguments(directory, arguments, words):
    done = run(directory, *arguments)
    assert done.returncode != 0
    assert all(word in done.stderr + done.stdout for word in words), done


def test_help_and_version(directory):
    text = output(directory, "--help")
    assert all(word in text for word in ("devices", "attachments", "detach", "stats", "probe", "--datapath-socket"))
    assert output(directory, "--version").strip()
