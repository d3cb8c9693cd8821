"""TCP and UDP in Ethernet frames, with unfinished checksums and segmentation as virtio-net's header describes them (virtio 1.2,
5.1.6), and their checks."""

import struct

from pod import frame

# virtio 1.2, 5.1.3
CSUM, GUEST_CSUM = 1 << 0, 1 << 1
GUEST_TSO4, GUEST_TSO6, GUEST_ECN, GUEST_UFO = 1 << 7, 1 << 8, 1 << 9, 1 << 10
HOST_TSO4, HOST_TSO6, HOST_ECN, HOST_UFO = 1 << 11, 1 << 12, 1 << 13, 1 << 14
SENDS, RECEIVES = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN, GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN
NEEDS_CSUM, DATA_VALID = 1, 2          # flags of the header
TCPV4, UDP, TCPV6, ECN = 1, 3, 4, 0x80  # its GSO types
TCP_PROTOCOL, UDP_PROTOCOL = 6, 17
ETHERNET = 14


def header(flags=0, gso=0, header_length=0, gso_size=0, start=0, offset=0):
    """virtio-net's; the number of buffers is the device's to say."""
    return struct.pack("<BBHHHH", flags, gso, header_length, gso_size, start, offset)


def checksum(data):
    """The ones' complement sum, to be inverted."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


class Packet:
    """A TCP or UDP packet; its checksum is whole, or only that of the pseudo-header."""

    def __init__(self, to, sender, payload, protocol=TCP_PROTOCOL, ipv6=False, partial=True, sequence=1000, flags=0x18):
        length = (20 if protocol == TCP_PROTOCOL else 8) + len(payload)
        addresses = bytes([10, 0, 0, 1, 10, 0, 0, 2])
        if ipv6:
            addresses = bytes.fromhex("fd00" + "0" * 27 + "1" + "fd00" + "0" * 27 + "2")
            network = struct.pack("!IHBB", 6 << 28, length, protocol, 64) + addresses
        else:
            network = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 77, 0x4000, 64, protocol, 0) + addresses
            network = network[:10] + struct.pack("!H", 0xffff - checksum(network)) + network[12:]
        pseudo = checksum(addresses + struct.pack("!IHBB", length, 0, 0, protocol))
        ports = struct.pack("!HH", 4000, 5000)
        if protocol == TCP_PROTOCOL:
            head, tail = ports + struct.pack("!IIBBH", sequence, 1, 0x50, flags, 512), b"\0\0"
        else:
            head, tail = ports + struct.pack("!H", length), b""
        value = pseudo
        if not partial:
            value = 0xffff - checksum(head + struct.pack("!H", pseudo) + tail + payload)
        transport = head + struct.pack("!H", value) + tail + payload
        kind = b"\x86\xdd" if ipv6 else b"\x08\x00"
        self.data = frame(to, sender)[:12] + kind + network + transport
        self.start = ETHERNET + len(network)
        self.header_length = self.start + length - len(payload)
        self.offset = 16 if protocol == TCP_PROTOCOL else 6

    def header(self, gso=0, gso_size=0):
        return header(NEEDS_CSUM, gso, self.header_length if gso else 0, gso_size, self.start, self.offset)


class Parsed:
    """Raises AssertionError for a packet whose lengths or checksums are wrong."""

    def __init__(self, data):
        ipv6 = data[12:14] == b"\x86\xdd"
        assert ipv6 or data[12:14] == b"\x08\x00", data[:20].hex()
        if ipv6:
            _, length, protocol, _ = struct.unpack_from("!IHBB", data, ETHERNET)
            start, addresses = ETHERNET + 40, data[ETHERNET + 8:ETHERNET + 40]
        else:
            whole, self.identity = struct.unpack_from("!HH", data, ETHERNET + 2)
            start, addresses, protocol = ETHERNET + 20, data[ETHERNET + 12:ETHERNET + 20], data[ETHERNET + 9]
            length = whole - 20
            assert checksum(data[ETHERNET:start]) == 0xffff, "the IPv4 header's checksum"
        assert len(data) == max(60, start + length) or len(data) == start + length, f"{len(data)} bytes, {length} of them TCP's"
        transport = data[start:start + length]
        assert checksum(addresses + struct.pack("!IHBB", length, 0, 0, protocol) + transport) == 0xffff, "the checksum"
        if protocol == TCP_PROTOCOL:
            self.sequence, self.flags = struct.unpack_from("!I", transport, 4)[0], transport[13]
            self.payload = transport[(transport[12] >> 4) * 4:]
        else:
            self.payload = transport[8:]
        self.length = len(data)
