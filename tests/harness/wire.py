"""A wire out of the node for a switch's uplink: a namespace with a veth pair, whose far end a test reads and writes."""

import contextlib
import ctypes
import os
import socket
import subprocess

from datapath import network_namespace


@contextlib.contextmanager
def wire():
    """A namespace with a veth pair in it, both ends up, and raw sockets on the far end, `outside`."""
    with network_namespace() as path:
        name = os.path.basename(path)

        def ip(*words):
            subprocess.run(["ip", "-n", name, *words], check=True)
        ip("link", "add", "uplink0", "type", "veth", "peer", "name", "outside")
        for end in ("uplink0", "outside"):
            subprocess.run(["ip", "netns", "exec", name, "sysctl", "-qw", f"net.ipv6.conf.{end}.disable_ipv6=1"],
                           check=True)
            ip("link", "set", end, "up")
        yield name


def raw_socket(name):
    """A packet socket on `outside` in the namespace. Opened by entering the namespace for a moment."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/var/run/netns/{name}", os.O_RDONLY)
    try:
        _setns(there)
        try:
            outside = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            outside.bind(("outside", 0))
        finally:
            _setns(here)
    finally:
        os.close(here)
        os.close(there)
    outside.settimeout(30)
    return outside


def _setns(fd):
    if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000) != 0:  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "setns")


def receive(outside, payload):
    """Returns the frame with this payload, as (VLAN or None, frame), since the kernel reports a VLAN tag separately."""
    outside.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA
    while True:
        data, ancillary, _, _ = outside.recvmsg(2048, 64)
        if payload not in data:
            continue
        auxiliary = ancillary[0][2]
        status, tag = int.from_bytes(auxiliary[:4], "little"), int.from_bytes(auxiliary[16:18], "little")
        return (tag & 0xfff if status & 0x10 else None), data  # TP_STATUS_VLAN_VALID
