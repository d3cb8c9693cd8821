"""Starts the test runners and counts the results from their reports, not from their exit codes."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import xml.etree.ElementTree

from steps import LOGS, log_of, python, say, wait


def pytest(folder, *options):
    return python("-m", "pytest", "-p", "no:cacheprovider", "-v", "-ra", "--tb=short", folder, *options)


def environment_of(kind):
    """The environment by which the tests find the programs."""
    return {"VDPA_BUILD": f"{os.getcwd()}/build/{kind}"}


def shown(command, log, environment=None):
    """Shows a command's output line by line, and keeps it in the log. Returns its status."""
    with open(log, "wb") as kept:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   env={**os.environ, **(environment or {})})

        def copy():
            for line in process.stdout:
                kept.write(line)
                sys.stdout.buffer.write(line)
                sys.stdout.flush()

        try:
            copy()
        except KeyboardInterrupt:
            copy()   # the command's cleanup
            raise
        return wait(process)


def unit(results, kind, suite):
    say(f"unit tests, {kind}")
    report = pathlib.Path(f"build/{kind}/meson-logs/testlog.json")
    report.unlink(missing_ok=True)
    log = log_of(f"unit-{kind}")
    with open(log, "wb") as output:
        # The time limits end tests that hang, on slow machines too. TSan would sleep for a second at each end of a program.
        wait(subprocess.Popen(["meson", "test", "-C", f"build/{kind}", "--no-rebuild", "--suite", suite, "--print-errorlogs",
                               "--timeout-multiplier", "10"],
                              stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"TSAN_OPTIONS": "atexit_sleep_ms=50"}))
    tests = []
    with contextlib.suppress(FileNotFoundError):
        tests = [json.loads(line) for line in report.read_text().splitlines()]
    failures = [f"unit test {test['name']}, {kind}: {test['result']}" for test in tests if test["result"] not in ("OK", "SKIP")]
    if not tests:
        failures = [f"unit tests, {kind}: no results in {report}"]
    ended = [test["result"] for test in tests]
    results.add(ended.count("OK"), len(failures), ended.count("SKIP"), failures)
    if failures:
        sys.stderr.write("".join(log.read_text(errors="replace").splitlines(keepends=True)[:200]))


def pytests(results, name, folder, kind, *options):
    """Runs pytest on a folder and shows each test as it ends."""
    say(f"{name} tests, {kind}")
    log, report = log_of(f"{name}-{kind}"), LOGS / f"{name}-{kind}.xml"
    findings = LOGS.absolute() / f"{name}-{kind}-sanitizer"
    for old in LOGS.glob(f"{findings.name}.*"):
        old.unlink()
    report.unlink(missing_ok=True)
    status = shown(pytest(folder, "--color=no", f"--junitxml={report}", *options), log,
                   {**environment_of(kind), "ASAN_OPTIONS": f"log_path={findings}",
                    "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={findings}"})
    lines = [line.split(" ", 1) for line in log.read_text(errors="replace").splitlines()]
    failures = [f"{kind}, {line[1]}" for line in lines if line[0] in ("FAILED", "ERROR") and line[1].startswith("tests")]
    results.add(*_junit(report, status), failures)
    # Findings in processes whose exit status no test checks.
    for finding in sorted(LOGS.glob(f"{findings.name}.*")):
        sys.stderr.write(finding.read_text(errors="replace"))
        results.add(0, 1, 0, [f"{name}, {kind}: a sanitizer's finding in {findings.parent / finding.name}"])


def _junit(report, status):
    """Returns the counts of passed, failed and skipped tests."""
    total = failed = skipped = 0
    try:
        for suite in xml.etree.ElementTree.parse(report).getroot().iter("testsuite"):
            total += int(suite.get("tests"))
            skipped += int(suite.get("skipped"))
            failed += int(suite.get("failures")) + int(suite.get("errors"))
    except (OSError, xml.etree.ElementTree.ParseError):
        return 0, 1, 0
    if failed == 0 and (status != 0 or total == 0):
        total, failed = total + 1, 1
    return max(0, total - failed - skipped), failed, skipped


def mutants_of(results, day):
    """Runs the day's ten mutants and counts each as a test."""
    say("mutants of the day")
    log = log_of("mutants")
    status = shown(python("tests/mutants/mutants.py", "--day", day), log)
    lines = log.read_text(errors="replace").splitlines()
    names = [line.removeprefix("FAILED mutant ").split(":")[0] for line in lines if line.startswith("FAILED mutant ")]
    failures = [f"mutant {name}, see ./run mutants {name}" for name in names]
    if status != 0 and not failures:
        failures = [f"mutants: see {log}"]
    results.add(sum(line.startswith("caught ") for line in lines), len(failures), 0, failures)
