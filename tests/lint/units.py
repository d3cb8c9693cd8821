"""Checks translation units, two at a time on two processors, and remembers those without findings.

A unit is not checked again while the command and the content of every file that the compiler read the last time are unchanged.
The compiler itself writes the list of files, so that the check for changes needs no preprocessing."""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import tempfile


@dataclasses.dataclass(frozen=True)
class Unit:
    name: str
    command: tuple  # "DEPENDENCIES" in it stands for the file to which the compiler writes the list of the files it read


class Memory:
    """A file for each unit without findings: the files that were read, and a hash of their content."""

    def __init__(self, folder, directory, *salt):
        """Commands run in `directory`; `salt` stands for other inputs that affect the result."""
        self._folder, self._directory, self._salt = folder, directory, salt
        self._folder.mkdir(parents=True, exist_ok=True)
        self._contents = {}

    def is_clean(self, unit):
        try:
            kept = json.loads(self._file(unit).read_text())
            return kept["hash"] == self._hash(unit, kept["files"])
        except (OSError, ValueError, KeyError):
            return False

    def keep(self, unit, files):
        files = sorted(set(files))
        content = json.dumps({"hash": self._hash(unit, files), "files": files})
        with tempfile.NamedTemporaryFile("w", dir=self._folder, delete=False) as new:  # another tree's lint may be reading it
            new.write(content)
        os.replace(new.name, self._file(unit))

    def _file(self, unit):
        return self._folder / (unit.name.replace("/", "+") + ".json")

    def _hash(self, unit, files):
        digest = hashlib.sha256("\0".join([*self._salt, *unit.command]).encode())
        for file in files:
            digest.update(file.encode() + b"\0" + self._content(file))
        return digest.hexdigest()

    def _content(self, file):
        if file not in self._contents:
            self._contents[file] = hashlib.sha256((self._directory / file).read_bytes()).digest()
        return self._contents[file]


def check(units, memory, directory):
    """Prints the findings at the end. Returns whether there are none."""
    left = [unit for unit in units if not memory.is_clean(unit)]
    print(f"{len(units) - len(left)} of {len(units)} are unchanged since they had no finding", flush=True)
    findings = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool, tempfile.TemporaryDirectory() as temporary:
        futures = {pool.submit(_run, unit, directory, pathlib.Path(temporary) / str(number)): unit
                   for number, unit in enumerate(left)}
        for number, future in enumerate(concurrent.futures.as_completed(futures)):
            unit, (output, files) = futures[future], future.result()
            print(f"[{number + 1}/{len(left)}] {unit.name}", flush=True)
            if output is None:
                memory.keep(unit, files)
            else:
                findings.append(output)
    print(*findings, f"findings in {len(findings)} of {len(units)}", sep="\n")
    return not findings


def _run(unit, directory, dependencies):
    """Returns its output, None without findings, and the files that were read."""
    command = [word.replace("DEPENDENCIES", str(dependencies)) for word in unit.command]
    done = subprocess.run(command, cwd=directory, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        return done.stdout + done.stderr, []
    rule = dependencies.read_text().replace("\\\n", " ")
    return None, [os.path.normpath(file) for file in rule.split(": ", 1)[1].split()]
