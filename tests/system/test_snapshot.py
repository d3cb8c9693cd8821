"""The cost of a scan of the node's devices, in system calls."""

import json
import os
import subprocess

import pytest
from support import BUILD
from sysfs import Sysfs

PLUGIN = BUILD / "deviceplugin/vdpa-device-plugin"
LOOKUPS = "openat,readlinkat,readlink,newfstatat,access,faccessat"   # each walks a path; reads of open files don't


def lookups(directory, pfs, vfs):
    directory.mkdir()
    sysfs = Sysfs(directory / "sys", pfs, vfs)
    (directory / "config.yaml").write_text(json.dumps({"resources": [{"name": "nic", "devices": [{"vendors": ["1af4"]}]}]}))
    trace = directory / "trace"
    done = subprocess.run(["unshare", "--net", "strace", "--follow-forks", "--output", trace, "--trace", LOOKUPS, PLUGIN,
                           "--validate", "--config", directory / "config.yaml", "--sysfs", sysfs.root],
                          env=os.environ | {"ASAN_OPTIONS": "detect_leaks=0"},   # leak detection can't run under a tracer
                          capture_output=True, text=True, check=True)
    assert sysfs.vf(pfs - 1, vfs - 1) in done.stdout
    lines = trace.read_text().splitlines()
    assert not any("/config\"" in line for line in lines), "reading a function's configuration space may wake it"
    return len([line for line in lines if "(" in line])


@pytest.mark.parametrize("pfs", [1, 8])
def test_a_vf_costs_at_most_eight_lookups(directory, pfs):
    few, many = (lookups(directory / str(vfs), pfs, vfs) for vfs in (8, 40))
    assert (many - few) / (pfs * 32) <= 8
