"""The metrics ports of both daemons, with clients that never finish their request."""

import contextlib
import socket
import urllib.request

import pytest

from datapath import Datapath
from device_plugin import DevicePlugin, software, write_config
from support import own_address, wait_until

HALF = b"GET /metrics HTTP/1.1\r\nHost: x"


class Port:
    def __init__(self, address, metric):
        self.address = address
        self.metric = metric

    def scrape(self):
        host, port = self.address
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as answer:
            return self.metric in answer.read().decode()

    def connect(self, request):
        client = socket.create_connection(self.address, 30)
        client.sendall(request)
        return client


@pytest.fixture(params=["vdpa-device-plugin", "vdpa-datapath"])
def port(directory, request):
    address = own_address(), 9102
    option = "--metrics-address=%s:%d" % address
    with contextlib.ExitStack() as stack:
        if request.param == "vdpa-datapath":
            stack.enter_context(Datapath(directory, option)).wait_serving()
            yield Port(address, "vdpa_attachments 0")
        else:
            config = write_config(directory, *software(nic=3)["resources"])
            program = stack.enter_context(DevicePlugin(directory, config, option))
            program.wait_log("waiting for the kubelet")
            started = Port(address, 'vdpa_config_loads_total{result="good"} 1')
            wait_until(started.scrape, "its first metrics")
            yield started


def is_open(client):
    """Whether the server still has the connection; its output is dropped."""
    client.setblocking(False)
    try:
        while client.recv(65536):
            pass
        return False
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


@pytest.mark.parametrize("request_text", [b"", HALF], ids=["silent", "half"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_scrape_is_answered_beside_unfinished_requests(port, request_text, count):
    """At once: the server still has every unfinished request. A machine that stalls for a second may take some attempts."""
    def beside():
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(port.connect(request_text)) for _ in range(count)]
            assert port.scrape()
            return all(is_open(client) for client in clients)
    wait_until(beside, "an answer before the others timed out", 20)


def test_more_unfinished_requests_than_threads_hold_a_scrape_up_for_a_while_only(port):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(port.connect(HALF)) for _ in range(12)]
        assert port.scrape()
        wait_until(lambda: not any(is_open(client) for client in clients), "all of them disconnected", 20)


def test_a_body_that_never_ends_holds_nobody_up(port):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(port.connect(HALF + b"\r\nContent-Length: 1000000\r\n\r\n")) for _ in range(12)]

        def trickled():
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(b"x")
            return not any(is_open(client) for client in clients)
        wait_until(trickled, "all of them disconnected", 20, 0.1)
        assert port.scrape()
