"""A switch with as many ports as it can have."""

import contextlib
import os
import resource
import struct

import pytest
from pod import BROADCAST, Pod, exchange
from processes import TICKS, asleep
from support import SANITIZED, wait_until
from switch import Refused, Switch
from vhost_front import (BASE, PROTOCOL_FEATURES, REPLY_ACK, SET_FEATURES, SET_MEM_TABLE, SET_OWNER, SET_PROTOCOL_FEATURES,
                         SET_VRING_ADDR, SET_VRING_BASE, SET_VRING_CALL, SET_VRING_ENABLE, SET_VRING_KICK, SET_VRING_NUM,
                         VERSION_1, FrontEnd)


def address(number):
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


class Light(FrontEnd):
    """A front-end whose memory and eventfds others have too. It asks for no answers, and its rings are empty until somebody
    uses them."""

    def __init__(self, path, memory, eventfd):
        super().__init__(path)
        self.send(SET_OWNER)
        self.send(SET_PROTOCOL_FEATURES, struct.pack("<Q", REPLY_ACK))
        self.send(SET_FEATURES, struct.pack("<Q", VERSION_1 | PROTOCOL_FEATURES))
        self.send(SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, BASE, os.fstat(memory).st_size, BASE, 0), [memory])
        for ring in range(2):
            start = BASE + ring * 0x4000
            self.send(SET_VRING_NUM, struct.pack("<II", ring, 256))
            self.send(SET_VRING_BASE, struct.pack("<II", ring, 0))
            self.send(SET_VRING_ADDR, struct.pack("<IIQQQQ", ring, 0, start, start + 0x2000, start + 0x1000, 0))
            self.send(SET_VRING_CALL, struct.pack("<Q", ring), [eventfd])
            self.send(SET_VRING_KICK, struct.pack("<Q", ring), [eventfd])
            self.send(SET_VRING_ENABLE, struct.pack("<II", ring, 1))


def crowd(directory):
    """All are connected; one more is refused, and the first and the last reach each other. That many need a limit of open files
    above 24,704; with a lower one the switch says how many it can serve. Returns how many."""
    before_test = resource.getrlimit(resource.RLIMIT_NOFILE)
    more = max(1 << 20, before_test[1])   # as the switch does where it may
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, more))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(4096, (limit[1] - 128) // 6)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    memory, eventfd = os.memfd_create("light"), os.eventfd(0)
    os.ftruncate(memory, 0x8000)
    try:
        with Switch(directory) as switch, contextlib.ExitStack() as stack:
            switch.wait_ready()
            if most < 4096:
                switch.wait_log(f"room for {most} ports instead of 4096: RLIMIT_NOFILE is {limit[1]}")
            before = switch.memory_kib("RssAnon") + switch.memory_kib("RssFile")
            paths = [switch.add(f"p{n}", address(n)) for n in range(1, most + 1)]
            for path in paths[1:-1]:
                stack.enter_context(Light(path, memory, eventfd))

            def connected():
                return sum(port["connected"] for port in switch.call("ports")["ports"])
            # Under emulation that takes minutes; a pod that connects meanwhile would give up.
            wait_until(lambda: connected() == most - 2, lambda: f"{connected()} of {most} connected", 900, 0.5)
            first, last = (stack.enter_context(Pod(paths[n - 1], address(n))) for n in (1, most))
            wait_until(lambda: connected() == most, lambda: f"{connected()} of {most} connected", 60, 0.5)
            with pytest.raises(Refused, match=f"already has {most} ports"):
                switch.add("more", address(most + 1))
            exchange(first, last, b"in a crowd")
            first.send_to(BROADCAST, b"to all")
            assert last.wait_payload(b"to all") == [b"to all"]
            assert switch.drops(f"p{most // 2}") == {"rx_full": 1}, "a copy for each"
            last.send_to(address(most // 2), b"to one of many")
            wait_until(lambda: switch.drops(f"p{most // 2}") == {"rx_full": 2}, lambda: switch.drops(f"p{most // 2}"))
            assert switch.drops(f"p{most // 2 + 1}") == {"rx_full": 1}, "its address was forgotten"
            if not SANITIZED:
                each = (switch.memory_kib("RssAnon") + switch.memory_kib("RssFile") - before) / most
                assert each < 32, f"{each} KiB a port"
                wait_until(lambda: asleep(switch.pid), "the switch to sleep")
                ticks = switch.cpu_ticks()
                for _ in range(10):
                    exchange(first, last, b"again")
                assert switch.cpu_ticks() - ticks < 0.2 * TICKS, "the others cost time although they are idle"
            for port in ("p1", f"p{most // 2}", f"p{most}"):
                switch.call("remove_port", id=port)
            assert len(switch.call("ports")["ports"]) == most - 3
            assert switch.stop() == 0
            return most
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before_test)
        os.close(memory)
        os.close(eventfd)
