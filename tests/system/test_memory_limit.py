"""The memory limit of workers and switches together, reached by a pod that shares memory which it has not touched."""

import contextlib
import os
import re
from pathlib import Path

import pytest

from datapath import Datapath, owner, settings
from huge_pages import removed
from pod import Pod, Sparse, exchange, mac
from support import SANITIZED, wait_until

pytestmark = [pytest.mark.packets, pytest.mark.release]
MORE = 64  # MiB that the pod may have allocated


@contextlib.contextmanager
def cgroup_root():
    """A cgroup with the memory controller, v1's or v2's, that stands for the top of the hierarchy."""
    v1 = Path("/sys/fs/cgroup/memory")
    root = (v1 if v1.is_dir() else Path("/sys/fs/cgroup")) / f"vdpa-memory-{os.getpid()}"
    root.mkdir()
    try:
        if (control := root / "cgroup.subtree_control").exists():
            control.write_text("+memory")
        yield root
    finally:
        for folder in (root / "vdpa", root):
            wait_until(lambda: removed(folder), f"the processes in {folder} to end")


def used(root):
    """In MiB."""
    return next(int(file.read_text()) >> 20 for name in ("memory.current", "memory.usage_in_bytes")
                if (file := root / "vdpa" / name).exists())


def connected(control, device):
    """Works even while the switch is down."""
    try:
        return control.port(device)["connected"]
    except (OSError, StopIteration):
        control.close()
        return False


def test_the_pod_whose_memory_a_switch_ends_of_is_named_and_the_others_go_on(directory):
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(cgroup_root())
        datapath = stack.enter_context(Datapath(directory, "--cgroup-root", root, "--memory-limit=0"))
        datapath.wait_serving().offer().wait_healthy()
        for number, name in enumerate(("one", "other", "sparse")):
            datapath.attach(owner(f"c{number}", pod=name), f"nic-{number}", settings(mac=mac(number), vlan=number // 2))
        limit = used(root) + MORE
        datapath = stack.enter_context(datapath.restarted("--cgroup-root", root, f"--memory-limit={limit}"))
        datapath.offer().wait_healthy()
        control = stack.enter_context(contextlib.closing(datapath.switch_control()))
        one, other = (stack.enter_context(Pod(datapath.socket(f"nic-{n}"), mac(n))) for n in (0, 1))
        sparse = stack.enter_context(Sparse(datapath.socket("nic-2"), mac(2)))
        for number in range(3):
            control.wait_connected(f"nic-{number}")
        exchange(one, other, b"before")
        workers = {n: datapath.worker_pid(f"nic-{n}") for n in range(3)}
        control.close()
        suspected = (r"vdpa-switch of vdpa.io/nic was killed for lack of memory: it pays for .*: .*default/sparse "
                     r".* has (\d+) MiB of it \(nic-2\)")
        # A kill may come between two bursts, and closes no port then; the pod continues, and so do the kills.
        closed = (r"vdpa-switch of vdpa.io/nic was killed for lack of memory \(.*: default/sparse .*\) as it served ring 1 "
                  "of nic-2: the port is closed for 60 s")
        ended = (r"vdpa-switch of vdpa.io/nic is not running: .*, for lack of memory: workers and switches have \d+ of "
                 rf"at most {limit} MiB together.* next start in")

        def named():
            found = wait_until(lambda: re.search(suspected, datapath.log()), datapath.log, 5)   # every worker is asked first
            return 0 < int(found[1]) < Sparse.SIZE >> 20
        if SANITIZED:  # it takes memory of its own all the time, and then again at each start: few ends fall on a ring
            sparse.have_allocated(lambda: re.search(ended, datapath.log()))
            assert named()
            assert workers == {n: datapath.worker_pid(f"nic-{n}") for n in range(3)}
            return
        sparse.have_allocated(lambda: re.search(closed, datapath.log()))
        assert named()
        wait_until(lambda: re.search(ended, datapath.log()), datapath.log)
        wait_until(lambda: connected(control, "nic-0") and connected(control, "nic-1"), datapath.log, 60)
        exchange(one, other, b"after")
        assert workers == {n: datapath.worker_pid(f"nic-{n}") for n in range(3)}
        device = datapath.device("nic-2")
        assert not device.healthy and "default/sparse" in device.reason
        assert "for lack of memory" in datapath.attachment("nic-2").state
        assert datapath.device("nic-0").healthy and datapath.device("nic-1").healthy
