"""./run lint: every check that runs nothing of the project. ../lint has those that no tool does by itself."""

import subprocess
import sys

sys.path.insert(1, "tests/lint")

from build import configure
from compiling import make_generated_headers
from steps import fail, main, python, step
from tools import tool


def lint():
    ruff = tool("ruff")
    tool("clang-tidy")
    configure("gcc")
    step("generated-headers", make_generated_headers())
    checks = {
        "clang-format": ["clang-format", "--dry-run", "-Werror", *_files("*.cc", "*.h")],
        "ruff": [ruff, "check", "--quiet", "--config", "tests/ruff.toml", "--cache-dir", "build/ruff", *_files("*.py")],
        "shellcheck": ["shellcheck", "--external-sources", "--check-sourced", "--source-path=SCRIPTDIR", *_shell_scripts()],
        "subjects": python("tests/lint/subjects.py"),
        "headers": python("tests/lint/headers.py"),
        "clang-tidy": python("tests/lint/clang_tidy.py"),
    }
    failed = []
    for name, command in checks.items():
        try:
            step(name, command)
        except SystemExit:
            failed.append(name)
    if failed:
        fail(f"lint: see {', '.join(failed)}")


def _files(*patterns):
    return subprocess.check_output(["git", "ls-files", *patterns], text=True).split()


def _shell_scripts():
    """Those that are run; shellcheck reads those that they source with them."""
    found = subprocess.check_output(["git", "grep", "--files-with-matches", "-E", "^#! ?/bin/(ba)?sh"], text=True)
    return found.split()


if __name__ == "__main__":
    main(lint)
