"""clang-tidy over every source and the headers it includes; .clang-tidy has the checks."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "run"))

from compiling import BUILD, flags
from steps import CACHE
from tools import VERSIONS, tool
from units import Memory, Unit, check


def main():
    program = tool("clang-tidy")
    # Not from a file that ninja or meson write: paths as the compiler is given them stay the same in every tree.
    units = [Unit(name, (program, "--quiet", "--config-file=../../.clang-tidy", f"../../{name}", "--", *words,
                         "-Wp,-MD,DEPENDENCIES"))
             for name, words in flags().items()]
    memory = Memory(CACHE / "lint/tidy", BUILD, VERSIONS["clang-tidy"], pathlib.Path(".clang-tidy").read_text())
    sys.exit(0 if check(units, memory, BUILD) else 1)


if __name__ == "__main__":
    main()
