"""Fixtures for every system test."""

import pathlib
import shutil
import signal
import sys
import tempfile

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1] / "harness")]


def pytest_configure(config):
    # A run that is terminated cleans up, as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config.addinivalue_line("markers", "packets: applications poll, on both processors")
    # The others run only under the sanitizers.
    config.addinivalue_line("markers", "release: measures the release build")
    config.addinivalue_line("markers", "long: only for ./run soak switch")


def _directory():
    """A short-lived directory with a short path: unix sockets below it must fit 107 bytes."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="vdpa-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


directory = pytest.fixture(_directory)
module_directory = pytest.fixture(_directory, scope="module")   # shared by tests that only read it
