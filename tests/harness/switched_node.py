"""A real vdpa-datapath with its workers and its switch, and pods on its devices."""

import contextlib

import pytest

from datapath import Datapath, owner, settings
from pod import Pod, mac
from testpmd import Testpmd


class SwitchedNode:
    """A node whose devices nic-0, nic-1, ... have the addresses mac(0), mac(1), ..."""

    def __init__(self, datapath, stack):
        self.datapath = datapath
        self.stack = stack
        self.control = datapath.switch_control()

    def attach(self, number, **values):
        self.datapath.attach(owner(f"c{number}"), f"nic-{number}", settings(mac=mac(number), **values))
        return self.datapath.socket(f"nic-{number}")

    def connect(self, number):
        """A pod on an attached device."""
        pod = self.stack.enter_context(Pod(self.datapath.socket(f"nic-{number}"), mac(number)))
        self.control.wait_connected(f"nic-{number}")
        return pod

    def pod(self, number, **values):
        self.attach(number, **values)
        return self.connect(number)

    def pods(self, count, **values):
        return [self.pod(number, **values) for number in range(count)]

    def testpmd(self, number, name, mode, queues=1, ring="split", size=64):
        """dpdk-testpmd on an attached device; it sends frames of this size, if any of its own."""
        options = f"path={self.datapath.socket(f'nic-{number}')},mac={mac(number)},queues={queues}"
        return Testpmd(name, self.datapath.directory, [f"net_virtio_user0,{options},packed_vq={int(ring == 'packed')}"],
                       mode, queues, core=number % 2, arguments=[f"--txpkts={size}"])

    def pair(self, **other):
        """An application that sends frames and counts those that another application sends back."""
        echo = self.stack.enter_context(self.testpmd(1, "echo", "macswap", **other))
        sender = self.stack.enter_context(self.testpmd(0, "sender", "flowgen", **other))
        return sender, echo


@contextlib.contextmanager
def running(directory, **offer):
    with contextlib.ExitStack() as stack:
        datapath = stack.enter_context(Datapath(directory))
        datapath.wait_serving().offer(**offer).wait_healthy()
        node = SwitchedNode(datapath, stack)
        stack.callback(node.control.close)
        yield node


@pytest.fixture
def node(directory):
    with running(directory) as made:
        yield made
