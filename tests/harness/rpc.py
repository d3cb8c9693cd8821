"""Python stubs of common/proto, generated at the first import: `from rpc import datapath`."""

import importlib
import shutil
import socket
import subprocess
import sys
import tempfile
import types

import grpc

from support import ROOT


def _generate():
    with tempfile.TemporaryDirectory(prefix="vdpa-stubs-") as directory:
        return _generate_in(directory)


def _generate_in(directory):
    protos = sorted((ROOT / "common" / "proto").glob("*.proto"))
    subprocess.run(["protoc", f"--proto_path={ROOT}/common/proto", f"--python_out={directory}",
                    f"--grpc_out={directory}", f"--plugin=protoc-gen-grpc={shutil.which('grpc_python_plugin')}",
                    *map(str, protos)], check=True)
    sys.path.insert(0, directory)
    modules = {}
    for proto in protos:
        both = types.SimpleNamespace()
        for suffix in ("_pb2", "_pb2_grpc"):
            both.__dict__.update(vars(importlib.import_module(proto.stem + suffix)))
        modules[proto.stem] = both
    sys.path.remove(directory)
    return modules


globals().update(_generate())


def channel(socket_path):
    """An insecure channel to a unix socket, on a connection of its own, that reconnects at once."""
    return grpc.insecure_channel(f"unix:{socket_path}", options=[
        ("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 200), ("grpc.enable_http_proxy", 0)])


def unix_client(path):
    """A connected socket, for what is no gRPC."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    return client
