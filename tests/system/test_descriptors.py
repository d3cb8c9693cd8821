"""The descriptor limit of a program: all that its container may have, not the usual soft limit of 1,024."""

import pathlib
import re
import resource

import pytest
from datapath import Datapath
from pmd import Pmd
from support import wait_until
from switch import Switch
from worker import Worker

START = {
    "vdpa-datapath": Datapath,
    "vdpa-switch": Switch,
    "vdpa-worker": Worker,
    "vdpa-pmd": lambda directory: Pmd(directory, directory / "engine.sock"),
}


@pytest.fixture
def usual_limit():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, before[1] - 1), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("name", START)
def test_the_limit_is_raised(directory, usual_limit, name):
    with START[name](directory) as program:
        def limits():
            text = pathlib.Path(f"/proc/{program.pid}/limits").read_text()
            return re.search(r"Max open files +(\S+) +(\S+)", text).groups()
        wait_until(lambda: len(set(limits())) == 1, lambda: f"no limit other than the hard one: {limits()}")
