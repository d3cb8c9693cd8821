"""Runs clang-tidy over every source and the headers that it includes; .clang-tidy has the checks. With --fix it corrects the
sources where it can."""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "run"))

from compiling import BUILD, flags
from steps import CACHE
from tools import VERSIONS, tool
from units import Memory, Unit, check


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fix", action="store_true")
    program = [tool("clang-tidy"), "--quiet", "--config-file=../../.clang-tidy"]
    fix = parser.parse_args().fix
    if fix:
        # Not in headers, which another process may be correcting at the same time.
        program += ["--fix", "--format-style=file", "--header-filter=^$"]
    # Not from a file that ninja or meson writes: compilers get the same paths in every tree.
    units = [Unit(name, (*program, f"../../{name}", "--", *words, "-Wp,-MD,DEPENDENCIES"))
             for name, words in flags().items()]
    memory = Memory(CACHE / "lint" / ("tidy-fix" if fix else "tidy"), BUILD, VERSIONS["clang-tidy"],
                    pathlib.Path(".clang-tidy").read_text())
    sys.exit(0 if check(units, memory, BUILD) else 1)


if __name__ == "__main__":
    main()
