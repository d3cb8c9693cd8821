"""Fixtures every system test may use."""

import pathlib
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture
def directory():
    """A short-lived directory with a short path: unix sockets below it must fit 107 bytes."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="vdpa-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
