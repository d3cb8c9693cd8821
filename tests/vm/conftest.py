"""One guest for the whole run; each test finds its NICs in their state after the boot."""

import pathlib
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "harness"))

from vm import Guest


collect_ignore = ["inside"]  # for the guest


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes minutes; run only by ./run soak machine")
    # A run that is terminated ends its guest, as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def guest():
    with Guest(memory=1536) as booted:
        yield booted
