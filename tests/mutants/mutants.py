"""Runs mutants: one-line bugs on which a named test must fail. README.md beside this file has the form of a patch.

Each is applied to a view of the tree that only the runner's commands see: an overlay mounted over the tree in a mount namespace
of its own. All paths stay the same, so that build/gcc, built before, is up to date except for the change, and leaving the
namespace undoes everything. The exit status is 1 unless every mutant was caught."""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/gcc"
A_DAY = 10
TEST_TIMEOUT = 180  # s; the tests' own deadlines are much shorter
# The programs that a system test may start.
PROGRAMS = ("cni", "deviceplugin", "tests/next", "tests/system/vdpa_test_driver")
# The upper layer is a tmpfs, since the tree itself may be on an overlay, which can't be an upper layer.
MOUNT = """
set -e
mkdir -p build/mutants
mount -t tmpfs tmpfs build/mutants
mkdir build/mutants/upper build/mutants/work
mount -t overlay overlay -o lowerdir=.,upperdir=build/mutants/upper,workdir=build/mutants/work "$PWD"
echo mounted
read -r end
"""


class Failure(Exception):
    """A reason why a mutant does not count as caught."""


@dataclasses.dataclass(frozen=True)
class Mutant:
    name: str
    patch: pathlib.Path
    test: str
    hurt: str
    file: str

    @staticmethod
    def read(path):
        text = path.read_text()
        found = {key: re.findall(rf"^{key}(.+)$", text, re.M) for key in ("Test: ", "Hurt: ", r"\+\+\+ b/")}
        for key, values in found.items():
            if len(values) != 1:
                raise SystemExit(f"{path.name}: {len(values)} lines '{key}'; expected one")
        return Mutant(path.stem, path, *(values[0].strip() for values in found.values()))


@contextlib.contextmanager
def view():
    """A changeable view of the tree: the command prefix that enters it. It ends with this process too."""
    with subprocess.Popen(["unshare", "--mount", "--propagation", "slave", "sh", "-c", MOUNT], cwd=ROOT, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as holder:
        if holder.stdout.readline() != "mounted\n":
            raise SystemExit(f"cannot mount an overlay over {ROOT}; needs root and a kernel with overlayfs: "
                             f"{holder.stderr.read().strip()}")
        try:
            # If a test fails on a mutant and leaves processes behind, they end with its command.
            yield ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", f"--wdns={ROOT}",
                   "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        finally:
            holder.kill()


def output_of(command):
    """Ignores the status, which is a count when Catch2 lists tests."""
    return subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=False).stdout


def apply(mutant, within):
    result = subprocess.run([*within, "git", "apply", str(mutant.patch)], text=True, capture_output=True, check=False)
    if result.returncode != 0:
        raise Failure(f"the patch does not apply: {result.stderr.strip()}")


def build(test, within):
    """Builds the test's executable, or every program."""
    if is_pytest(test):
        targets = output_of(["ninja", "-C", str(BUILD), "-t", "targets", "all"])
        wanted = [name for name in re.findall(r"^(\S+): cpp_LINKER$", targets, re.M) if name.startswith(PROGRAMS)]
    else:
        wanted = [executable_and_case(test)[0]]
        if wanted[0] == "tests/unit/datapath/test-datapath":
            wanted.append("tests/unit/datapath/control-program")
    status, output = run([*within, "nice", "ninja", "-C", str(BUILD), *wanted])
    if status != 0:
        raise Failure("it does not build:\n" + "\n".join(output.splitlines()[-15:]))


def run(command, timeout=None):
    """Returns its status, None if it missed the deadline, and its output. Ends all its processes in any case."""
    environment = {**os.environ, "VDPA_BUILD": str(BUILD), "BACKENDS": str(ROOT / "deviceplugin/backends.md")}
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                              stderr=subprocess.STDOUT, start_new_session=True) as process:
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                end(process)
        log.seek(0)
        return status, log.read()


def end(process):
    """Ends the remaining processes, after pytest has cleaned up, including those of a crashed test."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def is_pytest(test):
    return ".py::" in test


def executable_and_case(test):
    executable, _, case = test.partition(": ")
    return executable, case


def command_of(test):
    if is_pytest(test):
        return [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-q", "--tb=short", "--color=no", test]
    executable, case = executable_and_case(test)
    names = output_of([str(BUILD / executable), "--list-test-names-only"])
    if case not in names.splitlines():
        raise Failure(f"{executable} has no test '{case}'")
    return [str(BUILD / executable), re.sub(r"([\\,\[\]*\"~])", r"\\\1", case)]


def passes(test, within=()):
    """Returns whether the test passes, and its output. Raises Failure if the test can't run at all."""
    status, output = run([*within, *command_of(test)], TEST_TIMEOUT)
    if status is None:
        raise Failure(f"the test did not end within {TEST_TIMEOUT} s, which proves nothing:\n{output[-1500:]}")
    if is_pytest(test) and status != 1 and not (status == 0 and " passed" in output):
        raise Failure(f"pytest ran no test {test} (status {status}):\n{output[-1500:]}")
    return status == 0, output


class Unmutated:
    """Runs each test without a mutant, once per run: a test that fails anyway catches nothing."""

    def __init__(self):
        self.failures = {}

    def check(self, test):
        if test not in self.failures:
            passed, output = passes(test)
            self.failures[test] = None if passed else output
        if self.failures[test] is not None:
            raise Failure(f"the test fails without the mutant too:\n{self.failures[test][-1500:]}")


def try_one(mutant):
    with view() as within:
        apply(mutant, within)
        build(mutant.test, within)
        passed, output = passes(mutant.test, within)
    if passed:
        raise Failure(f"NOT CAUGHT: '{mutant.test}' passes with it; hurt: {mutant.hurt}")
    return output


def chosen(arguments):
    mutants = {path.stem: path for path in sorted(pathlib.Path(__file__).parent.glob("*.patch"))}
    if arguments.day:
        names = random.Random(arguments.day).sample(sorted(mutants), min(A_DAY, len(mutants)))
    else:
        names = arguments.names or list(mutants)
    for name in names:
        if name not in mutants:
            raise SystemExit(f"no mutant '{name}' in tests/mutants")
    return [Mutant.read(mutants[name]) for name in sorted(names)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="tests/mutants/NAME.patch; all by default")
    parser.add_argument("--day", metavar="DATE", help=f"the {A_DAY} that this date draws")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the output of the failing test")
    arguments = parser.parse_args()
    mutants = chosen(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a test is always cleaned up
    unmutated = Unmutated()
    failed = 0
    for mutant in mutants:
        start = time.monotonic()
        try:
            if not arguments.day:  # the other parts of ./run test run these tests without the mutant
                unmutated.check(mutant.test)
            output = try_one(mutant)
            print(f"caught {mutant.name} ({time.monotonic() - start:.0f} s)", flush=True)
            if arguments.verbose:
                print(output[-3000:])
        except Failure as failure:
            failed += 1
            print(f"FAILED mutant {mutant.name}: {failure}", flush=True)
    print(f"{len(mutants) - failed} of {len(mutants)} mutants caught")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
