"""A control channel in frames (common/control_stream.h), with every field of common/proto/control.proto; switch.Control has
lines."""

import socket
import struct

from rpc import control
from switch import Refused


class Frames:
    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(path))
        self.call(hello=control.Empty())   # until the first request, events come as lines

    def _read(self, size):
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            assert part, "the connection ended"
            data += part
        return data

    def call(self, **operation):
        message = control.Request(id=1, **operation).SerializeToString()
        self._socket.sendall(struct.pack(">IB", len(message), 0) + message)
        while True:
            size, descriptors = struct.unpack(">IB", self._read(5))
            assert descriptors == 0
            answer = control.FromProcess.FromString(self._read(size))
            if answer.HasField("answer"):
                assert answer.answer.id == 1
                return answer.answer

    def add(self, port, address, **settings):
        """The socket path of a new port."""
        answer = self.call(add_port=control.Port(id=port, mac=address, **settings))
        if answer.error:
            raise Refused(answer.error)
        return answer.add_port.socket

    def set(self, port, address, **settings):
        answer = self.call(set_port=control.Port(id=port, mac=address, **settings))
        if answer.error:
            raise Refused(answer.error)

    def close(self):
        self._socket.close()
