"""The test machine itself: the assumptions of the other tests in this folder."""

import signal
import time

from support import ROOT, wait_until


def test_commands_and_programs(guest):
    assert guest.run("echo out; echo err >&2; exit 3") == (3, "out\nerr\n")
    began = time.monotonic()
    assert guest.run("sleep 600", timeout=1).code is None
    assert guest.run("sleep 600 & echo left", timeout=60) == (0, "left\n")   # background processes delay no answer
    assert time.monotonic() - began < 30

    program = guest.start("bash -c 'trap \"echo bye; exit 5\" TERM; echo hello; while true; do sleep 0.1; done'", "greeter")
    wait_until(lambda: "hello" in program.log(), program.log)
    assert program.running()
    assert program.stop() == 5
    assert "bye" in program.log()
    program = guest.start("sleep 600")
    program.signal(signal.SIGKILL)
    assert program.wait(10) == -signal.SIGKILL


def test_the_share_goes_both_ways_and_the_hosts_files_stay(guest):
    (guest.share / "from-host").write_text("1")
    assert guest.check("cat /share/from-host; echo 2 > /share/from-guest") == "1"
    assert (guest.share / "from-guest").read_text() == "2\n"
    mark = ROOT / "tests" / "vm" / "written-by-the-guest"
    guest.check(f"echo x > {mark} && rm {mark} && touch {mark}")
    assert not mark.exists()
