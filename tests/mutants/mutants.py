"""Mutants: one-line bugs that a named test must fail on. README.md beside this file has the form of a patch.

Each is applied to a copy of the tree, which is kept between runs so that only what changed is compiled; the test's programs
are built there, and that test alone runs. The exit status is 1 unless every mutant was caught."""

import argparse
import contextlib
import dataclasses
import fcntl
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TREE = ROOT / "build/mutants/tree"
BUILD = TREE / "build/gcc"
A_DAY = 10
TEST_TIMEOUT = 180  # s; a test that a mutant makes hang has not passed
# The programs that a system test may start.
PROGRAMS = ("cni", "deviceplugin", "tests/system/vdpa_test_driver")


class Failure(Exception):
    """What keeps a mutant from counting as caught."""


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


def output_of(command, **options):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **options).stdout


def synchronize():
    """Makes the copy what the tree is. Writes only files that differ: ninja goes by their times."""
    files = set(output_of(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT).split("\n")) - {""}
    files = {name for name in files if (ROOT / name).is_file()}
    for old in list(TREE.rglob("*")):
        name = old.relative_to(TREE)
        if name.parts[0] != "build" and old.is_file() and str(name) not in files:
            old.unlink()
    for name in files:
        source, copy = ROOT / name, TREE / name
        if not copy.is_file() or copy.read_bytes() != source.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        copy.chmod(source.stat().st_mode)


def configure():
    if not (BUILD / "build.ninja").exists():
        subprocess.run(["meson", "setup", str(BUILD)], cwd=TREE, env={**os.environ, "CXX": "ccache g++"}, check=True,
                       stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def applied(mutant):
    """The patch in the copy, and out of it again."""
    file = TREE / mutant.file
    # The copy lies within a repository that ignores it: for git it is a folder on its own.
    result = subprocess.run(["git", "apply", str(mutant.patch)], cwd=TREE, text=True, capture_output=True, check=False,
                            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(TREE.parent)})
    if result.returncode != 0:
        raise Failure(f"the patch does not apply: {result.stderr.strip()}")
    try:
        yield
    finally:
        shutil.copyfile(ROOT / mutant.file, file)


def build(test):
    """What the test needs: its executable, or every program."""
    if is_pytest(test):
        targets = output_of(["ninja", "-t", "targets", "all"], cwd=BUILD)
        wanted = [name for name in re.findall(r"^(\S+): cpp_LINKER$", targets, re.M) if name.startswith(PROGRAMS)]
    else:
        wanted = [executable_and_case(test)[0]]
        if wanted[0] == "tests/unit/datapath/test-datapath":
            wanted.append("tests/unit/datapath/control-program")
    result = subprocess.run(["nice", "ninja", *wanted], cwd=BUILD, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, check=False)
    if result.returncode != 0:
        raise Failure("it does not build:\n" + "\n".join(result.stdout.splitlines()[-15:]))


def is_pytest(test):
    return ".py::" in test


def executable_and_case(test):
    executable, _, case = test.partition(": ")
    return executable, case


def command_of(test):
    if is_pytest(test):
        return [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-q", "--tb=short", "--color=no", test]
    executable, case = executable_and_case(test)
    names = output_of_any([str(BUILD / executable), "--list-test-names-only"])
    if case not in names.splitlines():
        raise Failure(f"{executable} has no test '{case}'")
    return [str(BUILD / executable), re.sub(r"([\\,\[\]*\"~])", r"\\\1", case)]


def output_of_any(command):
    """Of a program whose status is a count, as Catch2's when it lists."""
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, check=False).stdout


def passes(test):
    """Whether the test passes, and its output. A test that cannot be run at all is a Failure."""
    environment = {**os.environ, "VDPA_BUILD": str(BUILD), "README": str(TREE / "README.md")}
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        with subprocess.Popen(command_of(test), cwd=TREE, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                              stderr=subprocess.STDOUT, start_new_session=True) as process:
            try:
                status = process.wait(TEST_TIMEOUT)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                end(process)
        log.seek(0)
        output = log.read()
    if is_pytest(test) and status is not None and status != 1 and not (status == 0 and " passed" in output):
        raise Failure(f"pytest ran no test {test} (status {status}):\n{output[-1500:]}")
    return status == 0, output


def end(process):
    """Ends a test that runs still, after pytest has torn down what it had set up, and whatever a crashed one left."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Unmutated:
    """Each test without a mutant, once a run: one that fails by itself catches nothing."""

    def __init__(self):
        self.failures = {}

    def check(self, test):
        if test not in self.failures:
            self.failures[test] = None
            try:
                build(test)
                passed, output = passes(test)
                if not passed:
                    raise Failure(f"the test fails without the mutant too:\n{output[-1500:]}")
            except Failure as failure:
                self.failures[test] = failure
        if self.failures[test]:
            raise self.failures[test]


def try_one(mutant, unmutated):
    unmutated.check(mutant.test)
    with applied(mutant):
        build(mutant.test)
        passed, output = passes(mutant.test)
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
    # Those of one test after one another: their programs are linked less often.
    return sorted((Mutant.read(mutants[name]) for name in names), key=lambda mutant: (mutant.test, mutant.file))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="tests/mutants/NAME.patch; all by default")
    parser.add_argument("--day", metavar="DATE", help=f"the {A_DAY} that this date draws")
    parser.add_argument("-v", "--verbose", action="store_true", help="shows what the failing test said")
    arguments = parser.parse_args()
    mutants = chosen(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also then the copy is put right, and a test ended
    TREE.mkdir(parents=True, exist_ok=True)
    os.environ["CCACHE_BASEDIR"] = str(TREE)
    failed = 0
    with open(TREE.parent / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two runs one at a time has the copy
        synchronize()
        configure()
        unmutated = Unmutated()
        for mutant in mutants:
            start = time.monotonic()
            try:
                output = try_one(mutant, unmutated)
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
