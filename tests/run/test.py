"""./run test [PART...]: builds what the parts need, runs them two at a time, and reports the failures."""

import datetime
import sys
import time

from build import build
from fuzz import fuzz, fuzzer
from image import image
from lint import lint
from release import dist
from results import Results
from steps import LOGS, STARTED, fail, in_pairs, main, python, say, step
from testing import environment_of, mutants_of, pytests, unit
from third_party import cluster_programs, cni_programs, helm, monitoring_kinds, vm_setup

PARTS = ("lint", "unit", "fuzz", "system", "soak", "vm", "mutants", "e2e")


def test(*parts):
    for part in parts:
        if part not in PARTS:
            fail(f"test '{part}': expected some of {', '.join(PARTS)}")
    results = Results()
    _prepare(results, parts or PARTS)
    broken = in_pairs(_queue(results, parts or PARTS))
    results.add(0, len(broken), 0, [f"{part} broke off, see {LOGS}/{part}.log" for part in broken])
    say(f"all parts ended after {int(time.time()) - STARTED} s; the logs are in {LOGS}")
    sys.exit(0 if results.print() else 1)


def _prepare(results, parts):
    """Runs the parts that use all processors, and builds what the other parts start."""

    def wanted(*some):
        return any(part in parts for part in some)

    def counted(function, *arguments):
        results.counted(" ".join([function.__name__, *arguments]), function, *arguments)

    if wanted("lint"):
        counted(lint)
    counted(build, "gcc")
    if wanted("unit", "system"):
        counted(build, "clang-asan")
    if wanted("unit"):
        counted(build, "tsan")
        unit(results, "gcc", "unit")
        unit(results, "clang-asan", "unit")
        unit(results, "tsan", "tsan")
    if wanted("fuzz"):
        counted(fuzzer)
    if wanted("system", "soak", "vm", "mutants"):
        counted(cni_programs)
    if wanted("system", "mutants", "e2e"):
        counted(helm)
    if wanted("vm", "e2e"):
        counted(vm_setup)
    if wanted("e2e"):
        counted(cluster_programs)
        counted(monitoring_kinds)
        counted(image)
        counted(dist)


def _queue(results, parts):
    today = datetime.datetime.now()

    # Every system test runs under the sanitizers; the release build runs those that measure, and those on the virtual machine
    # and the cluster.
    def packets_asan():
        pytests(results, "packets", "tests/system", "clang-asan", "-m", "packets and not long")

    def packets_gcc():
        pytests(results, "packets", "tests/system", "gcc", "-m", "packets and release and not long")

    def programs_asan():
        pytests(results, "programs", "tests/system", "clang-asan", "-m", "not packets and not long")

    def programs_gcc():
        pytests(results, "programs", "tests/system", "gcc", "-m", "not packets and release and not long")

    def machine():
        pytests(results, "machine", "tests/vm", "gcc", "-m", "not long")

    def cluster():
        pytests(results, "cluster", "tests/e2e", "gcc", "-m", "not long")

    def fuzzing():
        results.counted("fuzz 60", fuzz, "60")

    def killing():
        arguments = ["50", f"{today.astimezone(datetime.UTC):%Y%m%d}", "--cycles", "300"]
        results.counted(f"soak {' '.join(arguments)}", step, "soak", python("tests/soak/soak.py", *arguments),
                        environment_of("gcc"))

    def mutating():
        mutants_of(results, today.date().isoformat())

    # The longest first; beside the cluster, those that mostly wait.
    order = [("vm", machine), ("system", packets_asan), ("system", packets_gcc), ("fuzz", fuzzing), ("soak", killing),
             ("mutants", mutating), ("system", programs_gcc), ("e2e", cluster), ("system", programs_asan)]
    return [function for part, function in order if part in parts]


if __name__ == "__main__":
    main(test)
