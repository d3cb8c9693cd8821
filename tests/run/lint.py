"""./run lint."""

import subprocess

from steps import main, step


def lint():
    files = subprocess.check_output(["git", "ls-files", "*.cc", "*.h"], text=True).split()
    step("lint", ["clang-format", "--dry-run", "-Werror", *files])


if __name__ == "__main__":
    main(lint)
