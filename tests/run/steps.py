"""The steps of a verb: commands and parts, each with its output in build/logs and its progress on the terminal.

All paths are relative to the top of the repository, where ./run starts a verb."""

import contextlib
import inspect
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import signal
import subprocess
import sys
import time

LOGS = pathlib.Path("build/logs")
CACHE = pathlib.Path(os.environ["VDPA_CACHE"])
STARTED = int(os.environ["RUN_STARTED"])
EVERY = 30  # s between two progress lines
BOLD, RED, PLAIN = ("\033[1m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


def say(text):
    print(f"{BOLD}[{int(time.time()) - STARTED:3} s]{PLAIN} {text}", flush=True)


def fail(text):
    """Ends the verb, or the current part of ./run test."""
    print(f"{RED}./run: {text}{PLAIN}", file=sys.stderr, flush=True)
    sys.exit(1)


def main(verb):
    """Runs a verb with its arguments. An interruption ends it without a traceback, which would hide its commands' output."""
    try:
        inspect.signature(verb).bind(*sys.argv[1:])
    except TypeError as error:
        fail(f"{verb.__name__}: {error}")
    try:
        verb(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def log_of(name):
    LOGS.mkdir(parents=True, exist_ok=True)
    return LOGS / f"{name}.log"


def python(program, *arguments):
    """The command that runs a program of the tests, without leaving compiled files in the tree."""
    return [sys.executable, "-B", str(program), *arguments]


def step(name, command, environment=None):
    """Runs a command, and fails if the command does: the steps after it depend on it."""
    begin = time.monotonic()
    say(f"{name} ...")
    with open(log_of(name), "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                   env={**os.environ, **(environment or {})})
    status = None
    while status is None:
        try:
            status = wait(process, EVERY)
        except subprocess.TimeoutExpired:
            _say_progress(name, begin)
    if status != 0:
        sys.stderr.write("".join(_lines(name)[-25:]))
        fail(f"{name} failed after {_since(begin)} s; the full output is in {log_of(name)}")
    say(f"{name}: done in {_since(begin)} s")


def wait(process, timeout=None):
    """Returns the command's status. An interruption reaches the command too, which gets the time to clean up."""
    try:
        return process.wait(timeout)
    except KeyboardInterrupt:
        process.wait()
        raise


def become(command, environment=None):
    """Replaces this process by the command, which thereby receives every signal."""
    sys.stdout.flush()
    os.execvpe(command[0], command, {**os.environ, **(environment or {})})


def in_pairs(parts):
    """Runs functions two at a time, and shows the output of each when it has ended. Returns the names of those that broke
    off."""
    waiting, running, broken = list(parts), [], []
    # SIGTERM interrupts the parts too, and each of them cleans up.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while waiting or running:
            while waiting and len(running) < 2:
                running.append(_Part(waiting.pop(0)))
            multiprocessing.connection.wait([part.process.sentinel for part in running], timeout=1)
            for part in [part for part in running if not part.process.is_alive()]:
                running.remove(part)
                sys.stdout.write("".join(_lines(part.name)))
                sys.stdout.flush()
                if part.process.exitcode != 0:
                    broken.append(part.name)
            for part in running:
                part.say_progress()
    finally:
        for part in running:
            part.interrupt()
        for part in running:
            part.process.join()
        signal.signal(signal.SIGTERM, before)
    return broken


class _Part:
    """A function in a process of its own, the leader of a process group, so that it can be interrupted with its commands."""

    def __init__(self, function):
        self.name = function.__name__
        self.begin = self.said = time.monotonic()
        say(f"{self.name} ...")
        self.process = multiprocessing.get_context("fork").Process(target=self._run, args=(function,))
        self.process.start()

    def _run(self, function):
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # also where ./run was started in the background
        with open(log_of(self.name), "wb") as log, open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        with contextlib.suppress(KeyboardInterrupt):
            function()
            return
        sys.exit(128 + signal.SIGINT)

    def say_progress(self):
        if time.monotonic() - self.said >= EVERY:
            self.said = time.monotonic()
            _say_progress(self.name, self.begin)

    def interrupt(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)


def _say_progress(name, begin):
    last = "".join(_lines(name)[-1:])
    say(f"{name}: {_since(begin)} s so far: {''.join(filter(str.isprintable, last))[:90]}")


def _lines(name):
    return log_of(name).read_text(errors="replace").splitlines(keepends=True)


def _since(begin):
    return int(time.monotonic() - begin)
