"""./run soak [ROUNDS] [SEED] and ./run soak cluster, switch or machine: runs tests/soak, or the long tests of tests/e2e,
tests/system or tests/vm, which take too long for ./run test."""

from build import build
from image import image
from release import dist
from steps import CACHE, become, main, python
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
        become(pytest("tests/e2e", "-m", "long"), environment_of("gcc"))
    build("gcc")
    if arguments[:1] == ("switch",):
        become(pytest("tests/system", "-m", "long"), environment_of("gcc"))
    become(python("tests/soak/soak.py", *arguments, "--previous", f"{CACHE}/releases"), environment_of("gcc"))


if __name__ == "__main__":
    main(soak)
