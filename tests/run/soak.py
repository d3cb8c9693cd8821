"""./run soak [ROUNDS] [SEED] and ./run soak cluster, switch or machine: runs tests/soak, or the long tests of tests/e2e (after
./run demo), tests/system or tests/vm, which take too long for ./run test."""

from build import build
from image import image
from release import dist
from steps import CACHE, become, fail, log_of, main, python, step
from testing import environment_of, pytest
from third_party import helm, previous_release, vm_setup


def soak(*arguments):
    if arguments[:1] == ("machine",):
        build("gcc")
        vm_setup()
        become(pytest("tests/vm", "-m", "long"), environment_of("gcc"))
    previous_release()
    if arguments[:1] == ("cluster",):
        build("gcc")
        image()
        dist()
        helm()
        vm_setup()
        _demo()
        become(pytest("tests/e2e", "-m", "long"), environment_of("gcc"))
    build("gcc")
    if arguments[:1] == ("switch",):
        become(pytest("tests/system", "-m", "long"), environment_of("gcc"))
    become(python("tests/soak/soak.py", *arguments, "--previous", f"{CACHE}/releases"), environment_of("gcc"))


def _demo():
    """As a visitor types it: with a cluster of its own, where the tests have theirs afterwards."""
    step("demo", ["./run", "demo"])
    shown = log_of("demo").read_text()
    for words in "million frames/s", "Try next:":
        if words not in shown:
            fail(f"./run demo has not printed '{words}'; see {log_of('demo')}")


if __name__ == "__main__":
    main(soak)
