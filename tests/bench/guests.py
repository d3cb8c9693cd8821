"""ring-generator as a process: light guests on the sockets of a vhost-user back-end."""

import json
import subprocess

from measure import BUILD

PROGRAM = BUILD / "tests/bench/ring-generator"
CORE = 0  # of the guests


MODES = {"traffic": ("pattern", "rate", "burst", "flows", "warm_up", "check"), "idle": (),
         "attack": ("kind", "watchers", "too_short", "pair", "rate", "warm_up")}


def command(sockets, mode, guests=2, idle=0, first=0, flags=(), **options):
    """The generator's command line; `flags` are options without a value."""
    def words(of_mode):
        return [*(f"--{flag}" for flag in flags if (flag in MODES[mode]) == of_mode),
                *(word for name, value in options.items() if (name in MODES[mode]) == of_mode
                  for word in (f"--{name.replace('_', '-')}", str(value)))]
    return [str(PROGRAM), *(word for socket in sockets for word in ("--socket", str(socket))), "--cpu", str(CORE),
            "--guests", str(guests), "--idle", str(idle), "--first", str(first), *words(False), mode, *words(True)]


class Guests:
    """A context manager; a process that still runs is killed at its end."""

    def __init__(self, sockets, mode, **options):
        self.process = subprocess.Popen(command(sockets, mode, **options), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)

    def line(self):
        """The next line that it prints, as JSON."""
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self.process.args))} failed: {self.process.stderr.read()[-2000:]}")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


def measured(sockets, mode, mark, **options):
    """The result, and what `mark` returned at the beginning and at the end of the time that counts."""
    with Guests(sockets, mode, **options) as guests:
        marks = [mark(guests.line()["hz"]) for _ in range(2)]
        result = guests.line()
        guests.process.wait()
    return result, marks


def resting(sockets, **options):
    """Guests that are only connected, until the context ends."""
    guests = Guests(sockets, "idle", **options)
    guests.line()
    return guests
