"""The tools that Debian 12 does not have, or not new enough, from the Python package index into the cache: one version each, so
that a new one does not find something new on its own day. Debian's clang-tidy 19 takes four times as long as this one, which
does not look at system headers' declarations again and again."""

import shutil

from steps import CACHE, python, step

VERSIONS = {"ruff": "0.17.6", "clang-tidy": "23.1.4"}


def tool(name):
    """The program, installed when it is asked for the first time."""
    folder = CACHE / "lint" / f"{name}-{VERSIONS[name]}"
    if not folder.exists():
        begun = folder.with_suffix(".new")
        shutil.rmtree(begun, ignore_errors=True)
        step(f"install-{name}", python("-m", "pip", "install", "--no-deps", "--target", str(begun),
                                       f"{name}=={VERSIONS[name]}"))
        begun.rename(folder)
    return str(next(path for path in (folder / name.replace("-", "_") / "data/bin" / name, folder / "bin" / name)
                    if path.exists()))
