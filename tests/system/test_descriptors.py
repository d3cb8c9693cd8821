"""The descriptor limit of a program: what a switch of 4,096 ports needs, or all that its container may have; not the usual
soft limit of 1,024."""

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
        wait_until(lambda: len(set(limits(program))) == 1, lambda: f"no limit other than the hard one: {limits(program)}")


@pytest.mark.parametrize("drop", [[], ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"]],
                         ids=["as this program", "without CAP_SYS_RESOURCE"])
def test_a_hard_limit_is_raised_by_those_who_may(directory, drop):
    wanted = "1048576" if may_raise() and not drop else "4096"
    with Datapath(directory, wrapper=["prlimit", "--nofile=512:4096", *drop]) as program:
        wait_until(lambda: limits(program) == (wanted, wanted), lambda: f"{limits(program)}, not {wanted}")


def limits(program):
    text = pathlib.Path(f"/proc/{program.pid}/limits").read_text()
    return re.search(r"Max open files +(\S+) +(\S+)", text).groups()


def may_raise():
    capabilities = int(re.search(r"CapEff:\s+(\w+)", pathlib.Path("/proc/self/status").read_text())[1], 16)
    return capabilities >> 24 & 1
