"""./run build [KIND [TARGET...]]: configures build/KIND if necessary, then builds all targets or the named ones."""

import json
import os
import pathlib
import subprocess

from steps import fail, main, step

# Each kind's compiler and meson options.
KINDS = {
    "gcc": ("g++", []),
    "clang-asan": ("clang++", ["-Db_sanitize=address,undefined", "-Db_lundef=false"]),
    "tsan": ("g++", ["-Db_sanitize=thread", "-Db_lundef=false"]),
}


def build(kind="gcc", *targets):
    if kind not in KINDS:
        fail(f"build '{kind}': expected gcc, clang-asan or tsan")
    configure(kind)
    # Only the tests of the thread sanitizer's build are ever run.
    step(f"build-{kind}", ["ninja", "-C", f"build/{kind}", *(targets or (_tests(kind) if kind == "tsan" else []))])


def configure(kind):
    compiler, options = KINDS[kind]
    if not pathlib.Path(f"build/{kind}/build.ninja").exists():
        step(f"configure-{kind}", ["meson", "setup", f"build/{kind}", *options], {"CXX": f"ccache {compiler}"})


def _tests(kind):
    """The executables of the suite of that name, and the programs that those start."""
    directory = f"build/{kind}"

    def introspect(what):
        return json.loads(subprocess.check_output(["meson", "introspect", what, directory]))

    files = {target["id"]: target["filename"] for target in introspect("--targets")}
    tests = [test for test in introspect("--tests") if any(suite.split(":")[-1] == kind for suite in test["suite"])]
    wanted = {test["cmd"][0] for test in tests}
    wanted |= {file for test in tests for needed in test["depends"] for file in files[needed]}
    return sorted(os.path.relpath(path, directory) for path in wanted)


if __name__ == "__main__":
    main(build)
