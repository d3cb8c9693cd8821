"""A pod's memory on huge pages: its own pages are used, and none of the node's are taken for it."""

import contextlib

import pytest

from datapath import Datapath, owner, settings
from guest import Guest
from huge_pages import cgroup_root, file_of, huge_pages, release_pages, reserved_in, taken
from pod import mac
from support import wait_until
from testpmd import Testpmd
from vhost_front import BASE, FrontEnd

pytestmark = pytest.mark.packets
PAGES = 144  # a guest's 256 MiB, and a reserve


@pytest.fixture
def node(directory):
    """A datapath whose processes may reserve no huge pages, although the node has some."""
    with huge_pages(PAGES), cgroup_root() as root, Datapath(directory, "--cgroup-root", root) as datapath:
        datapath.wait_serving().offer().wait_healthy()
        for number in range(2):
            datapath.attach(owner(f"c{number}"), f"nic-{number}", settings(mac=mac(number)))
        yield datapath


def test_memory_that_is_not_allocated_is_refused(node):
    before = taken()
    with FrontEnd(node.socket()) as front:
        front.negotiate()
        file = front.keep(file_of(PAGES, allocated=False))
        with contextlib.suppress(ConnectionError):
            front.set_memory((BASE, file))
        assert front.closed()
        node.wait_log(f"0 of the {2 * PAGES} MiB of huge pages it needs exist; the VM's memory is not allocated: "
                      "prealloc=on")
        assert taken() == before


def test_a_reservation_from_before_the_start_delays_the_limit(directory):
    """Reserved by a switch of release 0.1.0: the kernel refuses the limit while such pages are charged."""
    with huge_pages(2), cgroup_root() as root:
        control = root / "cgroup.subtree_control"
        if control.exists():
            control.write_text("+hugetlb", encoding="ascii")
        (root / "vdpa").mkdir()
        with contextlib.ExitStack() as stack:
            with reserved_in(root / "vdpa", 2) as limits:
                assert limits
                datapath = stack.enter_context(Datapath(directory, "--cgroup-root", root, "--release-after=1"))
                datapath.wait_serving().wait_log("Device or resource busy; retrying")
                assert all(limit.read_text(encoding="ascii") != "0\n" for limit in limits)
            datapath.wait_log("no switch can reserve huge pages from now on")
            assert all(limit.read_text(encoding="ascii") == "0\n" for limit in limits)


def test_a_switch_reserves_none_for_memory_that_a_pod_has_given_back(node):
    """Bypasses the worker's check, so that the kernel refuses it."""
    before = taken()
    with FrontEnd(node.socket()) as front:
        front.negotiate()
        file = front.keep(file_of(PAGES, allocated=True))
        front.set_memory((BASE, file))
        release_pages(file)
        assert taken() == before + 1  # the rings' memory
        with contextlib.suppress(ConnectionError):
            front.start_ring(0)
        node.wait_log("ended the front-end's session: the engine refused SET_MEM_TABLE")
        assert taken() == before + 1


def test_an_application_on_huge_pages(node):
    def application(number, mode, **other):
        vdev = f"net_virtio_user0,path={node.socket(f'nic-{number}')},mac={mac(number)}"
        return Testpmd(mode, node.directory, [vdev], mode, core=number, **other)
    with application(1, "macswap"), \
            application(0, "flowgen", huge=True, eal=["--in-memory", "--single-file-segments"]) as sender:
        sender.wait_received(1000, "to memory on huge pages and back")
        assert taken() > 0


def test_a_guest_on_huge_pages(node):
    with Guest(node.directory, node.socket(), memory=",hugetlb=on,hugetlbsize=2M,prealloc=on") as guest:
        wait_until(lambda: guest.counter("sent") > 2, lambda: f"packets:\n{guest.log()}\n{node.log()}", 120)


def test_a_guest_whose_memory_is_not_allocated(node):
    with Guest(node.directory, node.socket(), memory=",hugetlb=on,hugetlbsize=2M"):
        node.wait_log("the VM's memory is not allocated: prealloc=on", 120)
