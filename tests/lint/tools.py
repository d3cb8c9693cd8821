"""Tools and packages that Debian 12 lacks, or has only in old versions, from the Python package index into the cache. Their
versions are pinned, so that a new release does not cause new findings. Debian's clang-tidy 19 takes four times as long as this
one, which doesn't check the declarations of system headers repeatedly."""

import shutil

from steps import CACHE, python, step

VERSIONS = {"ruff": "0.17.6", "clang-tidy": "23.1.4", "grafana-foundation-sdk": "1769699998!10.1.0"}


def package(name):
    """The folder to import it from; installs it on first use."""
    folder = CACHE / "lint" / f"{name}-{VERSIONS[name]}"
    if not folder.exists():
        begun = folder.with_suffix(".new")
        shutil.rmtree(begun, ignore_errors=True)
        step(f"install-{name}", python("-m", "pip", "install", "--no-deps", "--target", str(begun),
                                       f"{name}=={VERSIONS[name]}"))
        begun.rename(folder)
    return folder


def tool(name):
    """The program's path; installs it on first use."""
    folder = package(name)
    return str(next(path for path in (folder / name.replace("-", "_") / "data/bin" / name, folder / "bin" / name)
                    if path.exists()))
