"""Facts about processes from /proc: their options, resources, and whether they sleep."""

import os
import pathlib
import socket
import struct
import time

TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid):
    """The fields of /proc/PID/stat, starting with the state."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rsplit(")", 1)[1].split()


def is_zombie(pid):
    return _stat(pid)[0] == "Z"


def ended(pid):
    """Whether the process is gone, or only waits to be reaped."""
    try:
        return is_zombie(pid)
    except (FileNotFoundError, ProcessLookupError):
        return True


def parent(pid):
    return int(_stat(pid)[1])


def cpu_ticks(pid):
    """User and system time together."""
    fields = _stat(pid)
    return int(fields[11]) + int(fields[12])


def cpu_seconds(pid):
    """CPU time by the scheduler's own account, in nanoseconds; of threads that have ended too."""
    return time.clock_gettime(~pid << 3 | 2)   # clock_getcpuclockid(3)


def memory_kib(pid, kind="VmRSS"):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(kind + ":"):
            return int(line.split()[1])
    raise AssertionError(f"no {kind} of {pid}")


def switches(pid, kind="ctxt_switches"):
    """How often each thread was descheduled so far; kind "voluntary_ctxt_switches" counts those times when it slept."""
    return {task.name: [int(line.split(":")[1]) for line in (task / "status").read_text().splitlines()
                        if line.split(":")[0] == kind or kind == "ctxt_switches" and kind in line]
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir()}


def asleep(pid):
    """Whether every thread is asleep at this moment."""
    return all((task / "stat").read_text().rsplit(")", 1)[1].split()[0] == "S"
               for task in pathlib.Path(f"/proc/{pid}/task").iterdir())


def arguments(pid):
    """The command line; empty for a zombie."""
    return pathlib.Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")


def options(pid):
    """The options of the form --name=value."""
    return dict(argument[2:].split("=", 1) for argument in arguments(pid)
                if argument.startswith("--") and "=" in argument)


def environment_has(pid, name, value):
    text = pathlib.Path(f"/proc/{pid}/environ").read_text(errors="replace")
    return f"{name}={value}" in text.split("\0")


def find(condition):
    """The pids for which `condition` is true now; skips processes that end meanwhile."""
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            if condition(pid):
                yield pid
        except OSError:
            continue


def listener(path):
    """The pid of the process that listens on a unix socket, or None."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            return struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    except OSError:
        return None


def kill(pid):
    """Kills the process if it still exists."""
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        pass
