"""The documents' blocks of code, for the tests that run them and the check that every command has such a test.

A comment above a fenced block marks it:

    <!-- tested "NAME": tests/FOLDER/FILE.py::TEST -->    that test takes the block by block(DOCUMENT, NAME)
    <!-- tested: tests/FOLDER/FILE.py::TEST -->           that test reads the document, and takes the commands from it itself
    <!-- not run: REASON -->

Every block of `sh` or `console` has a mark; others may have one."""

import dataclasses
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+|~~~+) *(?P<language>\S*)\s*$")
COMMENT = re.compile(r"^ *<!-- *(?P<text>.*?) *-->\s*$")
TESTED = re.compile(r'^tested(?: "(?P<name>[^"]+)")?: (?P<file>\S+\.py)::(?P<test>\w+)$')
NOT_RUN = re.compile(r"^not run: (?P<reason>\S.*)$")


class Error(Exception):
    """A malformed document, with its name and line."""


@dataclasses.dataclass(frozen=True)
class Block:
    document: str
    line: int           # of its fence, from 1
    language: str
    text: str           # without the indentation of its fence
    name: str = ""
    file: str = ""      # of the test that takes it
    test: str = ""
    reason: str = ""    # why it is not run

    @property
    def place(self):
        return f"{self.document}:{self.line}"


def documents():
    """The tracked documents, relative to the top of the repository."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=ROOT, text=True,
                            capture_output=True, check=True).stdout.split()
    return sorted(name for name in listed if (ROOT / name).exists())


def blocks(document):
    """Yields a document's blocks. Raises Error for a fence without an end, and for a mark without a block below it."""
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    mark, number = None, 0
    while number < len(lines):
        line = lines[number]
        number += 1
        fence, comment = FENCE.match(line), COMMENT.match(line)
        if fence:
            begin = number
            while number < len(lines) and lines[number].strip() != fence["ticks"]:
                number += 1
            if number == len(lines):
                raise Error(f"{document}:{begin}: the block that begins here has no end")
            indent = len(fence["indent"])
            text = "".join(f"{inner[indent:]}\n" for inner in lines[begin:number])
            number += 1
            yield Block(document, begin, fence["language"], text, **(mark or {}))
            mark = None
        elif mark is not None and line.strip():
            raise Error(f"{document}:{number}: expected a block of code below the mark")
        elif comment:
            mark = _mark(f"{document}:{number}", comment["text"])
    if mark is not None:
        raise Error(f"{document}:{number}: expected a block of code below the mark")


def block(document, name):
    """The text of the block with that name. A test that runs a document's commands gets them here."""
    found = [block.text for block in blocks(document) if block.name == name]
    if len(found) != 1:
        raise Error(f'{document}: {len(found)} blocks are named "{name}"; expected one')
    return found[0]


def _mark(place, text):
    """A comment's mark; None for any other comment."""
    tested, not_run = TESTED.match(text), NOT_RUN.match(text)
    if tested or not_run:
        return (tested or not_run).groupdict("")
    if text.startswith(("tested", "not run")):
        raise Error(f'{place}: malformed mark; expected \'tested "NAME": tests/FILE.py::TEST\', the same without a name, or '
                    "'not run: REASON'")
    return None
