"""Reads what vdpactl capture writes, by the pcapng specification (draft-ietf-opsawg-pcapng), and runs it."""

import dataclasses
import struct

import vdpactl
from support import Program, wait_until

SECTION, INTERFACE, STATISTICS, PACKET = 0x0a0d0d0a, 1, 5, 6
END_OF_OPTIONS, COMMENT, FLAGS, RECEIVED, DROPPED = 0, 1, 2, 4, 5
INBOUND, OUTBOUND = 1, 2


@dataclasses.dataclass
class Frame:
    time: float     # seconds since 1970
    inbound: bool
    length: int
    data: bytes
    comment: str


@dataclasses.dataclass
class File:
    name: str = ""
    description: str = ""
    snap_length: int = 0
    frames: list = dataclasses.field(default_factory=list)
    received: int = None   # of the statistics; None: there are none
    dropped: int = None

    def sent(self):
        return [frame.data for frame in self.frames if not frame.inbound and not frame.comment]

    def got(self):
        return [frame.data for frame in self.frames if frame.inbound and not frame.comment]

    def comments(self):
        return [frame.comment for frame in self.frames]


def _options(data):
    options = {}
    while True:
        code, length = struct.unpack_from("<HH", data)
        if code == END_OF_OPTIONS:
            assert length == 0 and len(data) == 4, data
            return options
        assert code not in options
        options[code] = data[4:4 + length]
        data = data[4 + (length + 3) // 4 * 4:]


def _blocks(data):
    while data:
        kind, length = struct.unpack_from("<II", data)
        assert length % 4 == 0 and length <= len(data), (kind, length, len(data))
        assert struct.unpack_from("<I", data, length - 4)[0] == length
        yield kind, data[8:length - 4]
        data = data[length:]


def parse(data):
    """The content of a whole file, which must be valid."""
    file = File()
    blocks = list(_blocks(data))
    assert [kind for kind, _ in blocks[:2]] == [SECTION, INTERFACE]
    assert blocks[0][1][:16] == struct.pack("<IHHq", 0x1a2b3c4d, 1, 0, -1)
    for kind, body in blocks[1:]:
        if kind == INTERFACE:
            link, _, file.snap_length = struct.unpack_from("<HHI", body)
            options = _options(body[8:])
            assert link == 1 and options[9] == b"\x09"
            file.name, file.description = options[2].decode(), options[3].decode()
        elif kind == PACKET:
            interface, high, low, captured, length = struct.unpack_from("<IIIII", body)
            options = _options(body[20 + (captured + 3) // 4 * 4:])
            flags, = struct.unpack("<I", options[FLAGS])
            assert interface == 0 and flags in (INBOUND, OUTBOUND) and captured == min(length, file.snap_length)
            file.frames.append(Frame((high << 32 | low) / 1e9, flags == INBOUND, length, body[20:20 + captured],
                                     options.get(COMMENT, b"").decode()))
        else:
            assert kind == STATISTICS and body is blocks[-1][1]
            options = _options(body[12:])
            file.received, = struct.unpack("<Q", options[RECEIVED])
            file.dropped, = struct.unpack("<Q", options[DROPPED])
    return file


class Capture(Program):
    """A vdpactl capture that runs, to a file."""

    def __init__(self, directory, device, *arguments):
        self.file = directory / f"{device}.pcapng"
        self.file.unlink(missing_ok=True)
        super().__init__("capture", vdpactl.command(directory, "capture", device, "-w", self.file, *arguments), directory)

    def wait_running(self):
        wait_until(lambda: self.file.exists() and self.file.stat().st_size > 0, lambda: f"the capture: {self.log()}")
        return self

    def wait_bytes(self, count):
        wait_until(lambda: self.file.stat().st_size >= count, f"{count} bytes of the capture")

    def result(self, status=0):
        """What it has captured, once it has ended."""
        assert self.process.wait(30) == status, self.log()
        file = parse(self.file.read_bytes())
        assert file.received == len(file.frames) + file.dropped
        assert f"vdpactl: {len(file.frames)} frames captured, {file.dropped} dropped by the capture" in self.log()
        return file

    def end(self):
        """Interrupts it, and returns what it has captured."""
        self.process.terminate()
        return self.result()
