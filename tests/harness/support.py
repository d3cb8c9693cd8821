"""Shared by the system tests: waiting for conditions, and programs as processes with their logs."""

import os
import pathlib
import signal
import subprocess
import time

import processes

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("VDPA_BUILD", ROOT / "build" / "gcc"))
# A sanitizer's build uses memory and time of its own, and is not linked statically.
SANITIZED = b"__asan_init" in (BUILD / "deviceplugin/datapath/worker/vdpa-worker").read_bytes()
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "vdpa"


def own_address():
    """A loopback address to listen on. Searching for a free port would be racy; instead the address contains our pid, since
    every address of 127/8 belongs to this machine."""
    return "127.%d.%d.%d" % (64 | os.getpid() >> 16, os.getpid() >> 8 & 255, os.getpid() & 255)


def wait_until(condition, what, timeout=30.0, interval=0.01):
    """Returns the condition's first true value; fails with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what() if callable(what) else what}")
        time.sleep(interval)


def suspend(pid):
    """Stops a process by SIGSTOP and waits until all its threads have stopped, since kill() returns earlier."""
    os.kill(pid, signal.SIGSTOP)

    def stopped():
        try:
            return all((thread / "stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
                       for thread in pathlib.Path(f"/proc/{pid}/task").iterdir())
        except (FileNotFoundError, ProcessLookupError):  # the thread has just ended
            return False
    wait_until(stopped, f"every thread of {pid} stopped")


class Program:
    """A process whose output goes to a file, which failures show. A context manager: the process ends with it."""

    def __init__(self, name, arguments, directory, environment=None, **popen):
        self.name = name
        self.log_path = pathlib.Path(directory) / f"{name}.log"
        # DPDK makes a folder for each process there; by default in /run.
        environment = {**os.environ, "RUNTIME_DIRECTORY": str(directory), **(environment or {})}
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([str(a) for a in arguments], stdout=log, stderr=log, env=environment,
                                            **popen)
        self.pid = self.process.pid

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait_log(self, text, timeout=30.0):
        def check():
            if text in self.log():
                return True
            if self.process.poll() is not None and text not in self.log():
                raise AssertionError(f"{self.name} ended ({self.process.returncode}) before '{text}':\n{self.log()}")
            return False
        wait_until(check, lambda: f"'{text}' in the log of {self.name}:\n{self.log()}", timeout)

    def cpu_ticks(self):
        return processes.cpu_ticks(self.pid)

    def memory_kib(self, kind="VmRSS"):
        return processes.memory_kib(self.pid, kind)

    def running(self):
        return self.process.poll() is None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, timeout=10.0):
        """Terminates the process; fails if it doesn't end."""
        if self.running():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} ignored SIGTERM for {timeout} s:\n{self.log()}") from None
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.running():
            self.kill()
