"""Checks whether every header compiles by itself. The build already covers a header that a source includes first; the others
are compiled here."""

import os
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "run"))

from compiling import BUILD, flags, nearest
from steps import CACHE
from units import Memory, Unit, check

FIRST = re.compile(r'^#include [<"](.*)[>"]', re.MULTILINE)


def main():
    sources = flags()
    headers = subprocess.check_output(["git", "ls-files", "*.h", ":!tests/vm/testnic"], text=True).split()
    first = {_first(source) for source in sources}
    units = [Unit(name, ("g++", "-fsyntax-only", *_flags(name, sources), "-MD", "-MF", "DEPENDENCIES", "-include",
                         f"../../{name}", "-x", "c++", "/dev/null"))
             for name in headers if name not in first]
    version = subprocess.check_output(["g++", "--version"], text=True)
    sys.exit(0 if check(units, Memory(CACHE / "lint/headers", BUILD, version), BUILD) else 1)


def _first(source):
    """The header that it includes first, relative to the repository if it is one of ours."""
    found = FIRST.search(pathlib.Path(source).read_text())
    if found is None:
        return None
    beside = os.path.normpath(os.path.join(os.path.dirname(source), found[1]))
    return beside if os.path.exists(beside) else found[1]


def _flags(header, sources):
    """The include paths of a nearby source, followed by those of all sources, so that every library's header is found."""
    paths = (word for words in sources.values() for word in words if word.startswith(("-I", "-isystem")))
    return list(dict.fromkeys([*sources[nearest(header, sources)], *paths]))


if __name__ == "__main__":
    main()
