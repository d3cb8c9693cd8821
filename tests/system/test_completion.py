"""Completion of vdpactl's command lines in real shells: sub-commands, options, their values, and the names of devices."""

import contextlib
import os
import pty
import re
import select
import subprocess
import time

import pytest

from fake_datapath import FakeDatapath
from rpc import datapath
from vdpactl import PROGRAM

DEVICES = ["0000:65:00.2", "0000:65:00.3", "nic-0"]
TERMINAL_CODE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\x07|\x08")


class Node(FakeDatapath):
    """A datapath that has these devices."""

    def List(self, _, __):
        return datapath.ListResponse(devices=[datapath.DeviceState(id=device) for device in DEVICES])


@pytest.fixture
def node(directory):
    node = Node(directory).start()
    yield f"vdpactl --datapath-socket={node.path}"
    node.stop()


def environment(directory):
    return {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "HOME": str(directory), "TERM": "dumb", "LC_ALL": "C.UTF-8"}


def script_of(shell):
    return subprocess.check_output([PROGRAM, "completion", shell], text=True)


def complete(*words):
    """The program's own answer: the words, and its status."""
    done = subprocess.run([PROGRAM, "__complete", *words], capture_output=True, text=True, check=False)
    return [line.split("\t")[0] for line in done.stdout.splitlines()], done.returncode


def sub_commands():
    """As --help lists them."""
    shown = subprocess.check_output([PROGRAM, "--help"], text=True)
    return re.findall(r"^  (\w+) ", shown.partition("Subcommands:")[2], re.MULTILINE)


def test_every_sub_command_completes():
    assert "detach" in sub_commands()
    assert complete("") == (sub_commands(), 0)
    assert complete("d") == ([name for name in sub_commands() if name.startswith("d")], 0)


@pytest.mark.parametrize("command", sub_commands())
def test_every_option_completes(command):
    shown = subprocess.check_output([PROGRAM, command, "--help"], text=True)
    own = set(re.findall(r"^  (?:-\w,)?(--[\w-]+)", shown, re.MULTILINE))
    assert own <= set(complete(command, "--")[0]) <= own | set(complete("--")[0])


def test_values_complete():
    assert complete("--output", "") == (["json", "table"], 0)
    assert complete("devices", "--output=j") == (["--output=json"], 0)
    assert complete("completion", "") == (["bash", "fish", "zsh"], 0)
    assert complete("stats", "--interval", "") == ([], 0), "a number"
    assert complete("--plugin-socket", "") == ([], 1), "a file"
    for words in ["probe"], ["lint"], ["bundle", "-o"], ["capture", "-w"]:
        assert complete(*words, "") == ([], 1), "a file"
    assert complete("devices", "") == ([], 0), "nothing follows"


def test_devices_complete(node):
    words = node.split()[1:]
    for command in "explain", "detach", "capture":
        assert complete(*words, command, "") == (DEVICES, 0)
    assert complete(*words, "explain", "nic-0", "") == ([], 0), "one device is enough"
    assert complete("--datapath-socket=/nowhere", "explain", "") == ([], 0)


class Terminal:
    """An interactive shell."""

    def __init__(self, command, directory):
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, environment(directory))
        self.text = ""

    def type(self, text):
        self.text = ""
        os.write(self.terminal, text.encode())

    def wait(self, expected):
        deadline = time.monotonic() + 20
        while expected not in self.text:
            assert time.monotonic() < deadline, f"no '{expected}' in:\n{self.text}"
            if select.select([self.terminal], [], [], 0.1)[0]:
                self.text = TERMINAL_CODE.sub("", self.text + os.read(self.terminal, 4096).decode(errors="replace"))

    def close(self):
        os.close(self.terminal)
        os.waitpid(self.pid, 0)


@contextlib.contextmanager
def terminal(command, setup, directory):
    shell = Terminal(command, directory)
    try:
        shell.type(f"{setup}; echo re''ady\n")
        shell.wait("ready")
        yield shell
    finally:
        shell.close()


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(vdpactl completion bash)"),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -u -D; source <(vdpactl completion zsh)"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_person_types_tab(shell, node, directory):
    (directory / "a-file").touch()
    with terminal(*SHELLS[shell], directory) as typed:
        typed.type("vdpactl exp\t")
        typed.wait("vdpactl explain ")
        typed.type(f"\x15{node} explain n\t")
        typed.wait("explain nic-0")
        typed.type(f"\x15{node} explain 00\t")
        typed.wait("explain 0000:65:00.")
        typed.type(f"\x15{node} detach 0000:65:00.3 --fo\t")
        typed.wait("0000:65:00.3 --force")
        typed.type("\x15vdpactl --output=j\t")
        typed.wait("--output=json")
        typed.type(f"\x15vdpactl probe {directory}/a-f\t")
        typed.wait("/a-file")


def test_fish(node, directory):
    script = directory / "vdpactl.fish"
    script.write_text(script_of("fish"))

    def completed(line):
        shown = subprocess.run(["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"], cwd=directory,
                               env=environment(directory), capture_output=True, text=True, check=True).stdout
        return {word: text for word, _, text in (row.partition("\t") for row in shown.splitlines())}
    assert completed("vdpactl det") == {"detach": completed("vdpactl ")["detach"]}
    assert set(completed(f"{node} explain ")) == set(DEVICES)
    assert set(completed("vdpactl --output=")) == {"--output=json", "--output=table"}
    assert "vdpactl.fish" in completed("vdpactl probe ")
    assert completed("vdpactl devices ") == {}
