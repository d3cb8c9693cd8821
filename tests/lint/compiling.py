"""How the build compiles the sources. Needs only the generated headers, not a build."""

import json
import os
import pathlib
import re
import shlex
import subprocess

BUILD = pathlib.Path("build/gcc")


def make_generated_headers():
    targets = subprocess.check_output(["ninja", "-C", BUILD, "-t", "targets", "all"], text=True)
    return ["ninja", "-C", str(BUILD), *re.findall(r"^(\S+\.pb\.h): ", targets, re.MULTILINE)]


def flags():
    """The compiler's flags of each source, by its name in the repository; relative to BUILD."""
    ours = set(subprocess.check_output(["git", "ls-files", "*.cc"], text=True).split())
    found = {}
    for entry in json.loads((BUILD / "compile_commands.json").read_text()):
        name = os.path.relpath(os.path.join(entry["directory"], entry["file"]))
        if name in ours:
            found.setdefault(name, _flags(entry))
    # The fuzzer's flags, which only clang uses.
    return found | {name: ["-I../..", *found[nearest(name, found)]] for name in sorted(ours - found.keys())}


def nearest(name, others):
    return max(others, key=lambda other: len(os.path.commonprefix([name, other])))


def _flags(entry):
    words = iter(shlex.split(entry["command"]))
    kept = []
    for word in words:
        if word in ("-MQ", "-MF", "-o"):
            next(words)
        elif word.startswith("-I../../"):
            pass  # without a source's own folder, which meson adds: headers are included by their full path
        elif word.startswith(("-I", "-D", "-std=", "-isystem", "-pthread", "-m")):
            kept.append(word)
    return kept
