"""vdpactl doctor and bundle with a real vdpa-datapath, on this machine as the node and as in a container."""

import json
import os
import pathlib
import stat
import subprocess
import tarfile

import pytest

from datapath import Datapath, broken_switches, owner
from support import BUILD, wait_until
from vdpactl import command, run

SECRET = "a-secret-of-another-program"


@pytest.fixture
def node(directory):
    """The directories of a node with Multus and the CNI plugin, as options."""
    cni, configurations, kubelet = directory / "bin", directory / "net.d", directory / "kubelet"
    for path in cni, configurations, kubelet / "device-plugins":
        path.mkdir(parents=True)
    (cni / "vdpa").symlink_to(BUILD / "cni/vdpa")
    (configurations / "00-multus.conf").write_text(json.dumps({"type": "multus", "name": "m", "token": SECRET}))
    (configurations / "10-other.conf").write_text(json.dumps({"type": "other", "password": SECRET}))
    return ["--cni-dir", cni, "--cni-conf-dir", configurations, "--kubelet-dir", kubelet, "--run-dir", directory / "run",
            "--state-dir", directory / "state", "--plugin-socket", directory / "run/plugin.sock"]


def examine(directory, *arguments, **popen):
    done = run(directory, "doctor", "-o", "json", *arguments, **popen)
    report = json.loads(done.stdout)
    assert done.returncode == report["failed"] == any(check["verdict"] == "FAIL" for check in report["checks"]), done
    return report, {check["check"]: check for check in report["checks"]}


def outside():
    """An environment as on a node, wherever the tests run."""
    return {key: value for key, value in os.environ.items() if key != "KUBERNETES_SERVICE_HOST"}


def test_doctor_on_a_node(directory, node):
    with Datapath(directory) as datapath:
        datapath.wait_serving().offer(2).wait_healthy()
        datapath.attach(owner("c1", pod="web"), "nic-0")
        report, checks = examine(directory, *node, env=outside())
        version = run(directory, "--version").stdout.strip()
        assert (report["place"], report["version"], report["node"]) == ("node", version, os.uname().nodename)
        assert checks["kernel"]["text"].startswith("Linux " + os.uname().release)
        assert checks["datapath"]["verdict"] == "PASS"
        assert (checks["devices"]["verdict"], checks["devices"]["text"]) == ("PASS", "2, all healthy")
        assert checks["cni"]["verdict"] == "PASS" and version in checks["cni"]["text"], checks["cni"]
        assert checks["multus"]["verdict"] == "PASS" and checks["disk"]["verdict"] in ("PASS", "WARN")
        assert checks["limits"]["verdict"] != "UNSEEN" and checks["seccomp"]["verdict"] in ("PASS", "WARN")
        # There is no plugin and no kubelet here.
        assert checks["plugin"]["verdict"] == checks["kubelet"]["verdict"] == "FAIL"
        assert str(directory) in checks["plugin"]["text"] and checks["plugin"]["remedy"]
        # The datapath and its switch, but not the worker, whose version is the same.
        assert checks["versions"]["verdict"] == "PASS"
        assert checks["versions"]["text"] == (
            f"vdpactl {version}, vdpa-datapath {version}, vdpa-switch of vdpa.io/nic {version}")

        text = run(directory, "doctor", *node, env=outside())
        assert text.returncode == 1
        assert any(line.startswith("FAIL    plugin") for line in text.stdout.splitlines())
        assert "remedy: " in text.stdout and " failed" in text.stdout.splitlines()[-1]


def test_doctor_without_a_datapath_and_with_an_unhealthy_device(directory, node):
    _, checks = examine(directory, *node, env=outside())
    assert checks["datapath"]["verdict"] == "FAIL" and "is vdpa-datapath running" in checks["datapath"]["text"]
    assert checks["devices"]["verdict"] == "UNSEEN"
    with Datapath(directory, worker_dirs=broken_switches(directory)) as datapath:
        datapath.wait_serving().offer(1)
        wait_until(lambda: "status 3" in datapath.device().reason, "the reason")
        _, checks = examine(directory, *node, env=outside())
        assert checks["devices"]["verdict"] == "WARN" and "status 3" in checks["devices"]["text"]


def test_a_cni_plugin_of_another_version(directory, node):
    program = directory / "bin/vdpa"
    program.unlink()
    program.write_text("#!/bin/sh\necho 0.1.0\n")
    program.chmod(0o755)
    _, checks = examine(directory, *node, env=outside())
    assert checks["cni"]["verdict"] == "WARN" and "has version 0.1.0" in checks["cni"]["text"]
    program.write_text("#!/bin/sh\nsleep 100\n")   # does not hold doctor up
    _, checks = examine(directory, *node, env=outside())
    assert checks["cni"]["verdict"] == "FAIL" and "cannot be run" in checks["cni"]["text"]


def test_doctor_in_a_container(directory):
    """Without capabilities, as in vdpa-datapath's container: what is not mounted cannot be seen, and is no failure."""
    absent = [f"--{name}=/absent/{name}" for name in ("cni-dir", "cni-conf-dir", "kubelet-dir", "state-dir")]
    program, *arguments = command(directory, "doctor", "-o", "json", *absent)
    done = subprocess.run(["unshare", "--mount", "setpriv", "--bounding-set=-all", program, *arguments], capture_output=True,
                          text=True, check=False, env={**os.environ, "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, timeout=30)
    report = json.loads(done.stdout)
    checks = {check["check"]: check for check in report["checks"]}
    assert (report["place"], report["seesAll"]) == ("container", False)
    for name in "cni", "multus", "disk", "cgroups":
        assert checks[name]["verdict"] == "UNSEEN", checks[name]
        assert not checks[name]["remedy"]


def test_doctor_of_a_mounted_node(directory):
    """--root is before every path, of sockets too."""
    with Datapath(directory) as datapath:
        datapath.wait_serving()
        (directory / "proc/sys/kernel").mkdir(parents=True)
        (directory / "proc/sys/kernel/osrelease").write_text("5.2.0\n")
        done = subprocess.run([command(directory)[0], "doctor", "--root", directory, "--datapath-socket", "/run/datapath.sock",
                               "-o", "json"], capture_output=True, text=True, check=False, timeout=30)
        checks = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
        assert checks["kernel"]["verdict"] == "FAIL" and "5.2.0" in checks["kernel"]["text"]
        assert checks["cni"]["text"] == "/opt/cni/bin is missing"
        assert str(directory / "run/datapath.sock") not in checks["datapath"]["text"]


def test_doctor_needs_root(directory):
    done = run(directory, "doctor", preexec_fn=lambda: os.setuid(65534))
    assert done.returncode == 1 and "run vdpactl as root" in done.stderr and not done.stdout


def test_bundle(directory, node):
    file = directory / "node.tar.gz"
    with Datapath(directory) as datapath:
        datapath.wait_serving().offer(2).wait_healthy()
        datapath.attach(owner("c1", pod="web"), "nic-0")
        done = run(directory, "bundle", "-o", file, *node, env=outside())
        assert done.returncode == 0, done
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        notes = done.stderr
        piped = subprocess.run(command(directory, "bundle", "-o", "-", *node), capture_output=True, check=True, timeout=60)
    (directory / "piped.tar.gz").write_bytes(piped.stdout)
    with tarfile.open(file) as archive, tarfile.open(directory / "piped.tar.gz") as other:
        contents = {member.name.removeprefix("vdpa-bundle/"): archive.extractfile(member).read() for member in archive}
        assert {member.name for member in archive} - {member.name for member in other} <= {
            name for name in archive.getnames() if "/processes/" in name}
    for name in ("README", "doctor.txt", "doctor.json", "datapath-list.json", "datapath-stats.json", "netlink/links.json",
                 "netlink/vdpa.json", "sysfs.json", "run.txt", "kernel/meminfo", "configuration/cni/00-multus.conf"):
        assert contents[name], name
    # There is no plugin here, unless another test runs one.
    assert "configuration/config.yaml" in contents or "plugin's configuration cannot be seen" in notes
    assert "nic-0" in str(json.loads(contents["records/owners/nic-0.json"]))
    assert json.loads(contents["datapath-list.json"])["attachments"][0]["deviceId"] == "nic-0"
    assert "lo" in {link["name"] for link in json.loads(contents["netlink/links.json"])}
    assert json.loads(contents["devices/nic-0/device.json"])["deviceID"] == "nic-0"
    assert "workers/nic-0.sock" in contents["run.txt"].decode()
    assert any(name.startswith("processes/vdpa-datapath-") for name in contents)
    assert SECRET not in str(contents), "no secrets, even of other programs"
    assert "10-other.conf" in contents["configuration/cni.txt"].decode() and "configuration/cni/10-other.conf" not in contents


def test_bundle_that_cannot_be_written(directory, node):
    done = run(directory, "bundle", "-o", "/proc/x.tar.gz", *node)
    assert done.returncode == 1 and "cannot write /proc/x.tar.gz" in done.stderr
    done = run(directory, "bundle", "-o", "/dev/full", *node)
    assert done.returncode == 1 and "cannot write /dev/full: No space left on device" in done.stderr
    assert run(directory, "bundle").returncode != 0
    assert pathlib.Path("/dev/full").is_char_device()
