"""./run lint [fix]: runs every static check. ../lint has those beyond an ordinary tool."""

import subprocess
import sys

sys.path.insert(1, "tests/lint")

from build import configure
from compiling import make_generated_headers
from steps import fail, main, python, step
from tools import package, tool


def lint(what="check"):
    if what not in ("check", "fix"):
        fail(f"lint '{what}': expected fix or nothing")
    fix = ["--fix"] if what == "fix" else []
    ruff = tool("ruff")
    tool("clang-tidy")
    package("grafana-foundation-sdk")
    configure("gcc")
    step("generated-headers", make_generated_headers())
    tidy = {"clang-tidy": python("tests/lint/clang_tidy.py", *fix)}
    others = {
        "clang-format": ["clang-format", *(["-i"] if fix else ["--dry-run", "-Werror"]), *_files("*.cc", "*.h")],
        "ruff": [ruff, "check", *fix, "--quiet", "--config", "tests/ruff.toml", "--cache-dir", "build/ruff",
                 *_files("*.py"), *_scripts("python3")],
        "shellcheck": ["shellcheck", "--external-sources", "--check-sourced", "--source-path=SCRIPTDIR", *_scripts("sh")],
        "subjects": python("tests/lint/subjects.py"),
        "dashboard": python("tests/lint/dashboard.py"),
        "folders": python("tests/lint/folders.py"),
        "headers": python("tests/lint/headers.py"),
        "locks": python("tests/lint/locks.py"),
        "walk": python("tests/lint/walk.py"),
        "commands": python("tests/lint/commands.py"),
        "links": python("tests/lint/links.py"),
    }
    # clang-tidy is the slowest, so it comes last; with "fix" it comes first, so that its corrections get formatted.
    checks = tidy | others if fix else others | tidy
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


def _scripts(interpreter):
    """The executable scripts; shellcheck follows the files that they source."""
    found = subprocess.check_output(["git", "grep", "--files-with-matches", "-E", f"^#!.*{interpreter}$"], text=True)
    return found.split()


if __name__ == "__main__":
    main(lint)
