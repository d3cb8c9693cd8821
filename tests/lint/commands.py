"""Whether every command in the documents is run by a test or marked as not, with the reason.

../harness/documents.py has the form of the marks. README.md is the way in, and therefore short."""

import ast
import pathlib
import re
import sys

sys.path.insert(1, str(pathlib.Path(__file__).parents[1] / "harness"))

import documents

# A console block is a transcript, which shows commands with their output.
COMMANDS = {"sh", "console"}
# Of the other blocks.
OTHERS = {"text", "yaml", "json", "c", "diff", "markdown"}
LIMITS = {"README.md": 200}  # lines
PROMPT = re.compile(r"^[$#] |^(sudo |kubectl |\./run |vdpactl |helm )")


def main():
    found, errors = [], []
    for document in documents.documents():
        length = len((documents.ROOT / document).read_text(encoding="utf-8").splitlines())
        if length > LIMITS.get(document, length):
            errors.append(f"{document}: has {length} lines; expected at most {LIMITS[document]}")
        try:
            found += documents.blocks(document)
        except documents.Error as error:
            errors.append(str(error))
    calls = _calls()
    for block in found:
        errors += _errors(block, calls)
    names = [(block.document, block.name) for block in found if block.name]
    errors += [f'{document}: two blocks are named "{name}"' for document, name in sorted(set(names)) if
               names.count((document, name)) > 1]
    errors += [f'{file}: takes "{name}" of {document}, which has no such block'
               for file, taken in calls.items() for document, name in sorted(taken - set(names))]
    if errors:
        sys.exit("\n".join(errors))


def _errors(block, calls):
    if block.language in COMMANDS:
        if not block.test and not block.reason:
            yield f"{block.place}: commands without a mark; see tests/harness/documents.py"
    elif block.language not in OTHERS:
        yield f"{block.place}: a block of '{block.language}'; expected {', '.join(sorted(COMMANDS | OTHERS))}"
    elif block.language == "text" and any(PROMPT.match(line) for line in block.text.splitlines()):
        yield f"{block.place}: commands in a block of text; expected {' or '.join(sorted(COMMANDS))}"
    if not block.test:
        return
    path = documents.ROOT / block.file
    if not path.exists():
        yield f"{block.place}: there is no {block.file}"
    elif not re.search(rf"^def {block.test}\(", path.read_text(encoding="utf-8"), re.MULTILINE):
        yield f"{block.place}: {block.file} has no {block.test}"
    elif not block.name and f'"{block.document}"' not in path.read_text(encoding="utf-8"):
        yield f"{block.place}: {block.file} does not read {block.document}"
    elif block.name and (block.document, block.name) not in calls.get(block.file, ()):
        yield f'{block.place}: {block.file} does not call block("{block.document}", "{block.name}")'


def _calls():
    """By file, the documents and names of the blocks that it takes."""
    calls = {}
    for path in sorted((documents.ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", getattr(node.func, "attr", "")) != "block":
                continue
            arguments = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            if len(arguments) == 2:
                calls.setdefault(str(path.relative_to(documents.ROOT)), set()).add(tuple(arguments))
    return calls


if __name__ == "__main__":
    main()
