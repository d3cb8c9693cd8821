"""Debian's packages of which a program contains parts: those whose static libraries and start files the linker takes in."""

import pathlib
import re
import shlex
import subprocess

INPUT = re.compile(r"^\(?(/(?:usr|lib)[^()\s]*\.[ao])\b")


def static_packages(build, program):
    """Links the program again, to nowhere, and has the linker name its inputs."""
    commands = subprocess.check_output(["ninja", "-C", build, "-t", "commands", "-s", program], text=True).splitlines()
    [link] = [command for command in commands if f" -o {program} " in f"{command} "]
    command = shlex.split(link)
    command[command.index("-o") + 1] = "/dev/null"
    traced = subprocess.run([*command, "-Wl,--trace"], cwd=build, check=True, capture_output=True, text=True).stdout
    files = {str(pathlib.Path(found[1]).resolve()) for line in traced.splitlines() if (found := INPUT.match(line))}
    return packages_of(files)


def packages_of(files):
    """The installed packages that these files belong to."""
    # Files in /usr/lib may be registered as in /lib, from before Debian's directories were merged.
    names = sorted(files) + [file.removeprefix("/usr") for file in sorted(files)]
    answer = subprocess.run(["dpkg", "-S", *names], capture_output=True, text=True, check=False).stdout
    return {package.split(":")[0] for line in answer.splitlines() for package in line.rsplit(": ", 1)[0].split(", ")}


def status(package):
    """The fields of an installed package, as dpkg records them."""
    return fields(subprocess.check_output(["dpkg-query", "-s", package], text=True))


def fields(text):
    return dict(re.findall(r"^([A-Za-z-]+): (.*)$", text, re.MULTILINE))
