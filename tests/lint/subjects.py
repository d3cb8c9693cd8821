"""Checks whether the subjects of the commits after the one in .ci/subjects-since have the form "area: verb ..."."""

import pathlib
import re
import subprocess
import sys

SINCE = pathlib.Path(".ci/subjects-since")
LONGEST = 72
AREA = r"[A-Za-z0-9.][A-Za-z0-9_.+/-]*( [A-Za-z0-9_.+/-]+)?"  # switch, README, tests/vm, device plugin
FORM = re.compile(rf"{AREA}(, {AREA})*: [a-z][a-z-]* .*")


def complaints(subject):
    if subject.startswith("Merge: "):
        return
    if len(subject) > LONGEST:
        yield f"{len(subject)} characters, at most {LONGEST}"
    if not FORM.fullmatch(subject):
        yield "expected 'area: verb in small letters ...', as in 'switch: count runts by their own reason'"
    if subject.endswith("."):
        yield "ends with a period"


def commits():
    """The commits after SINCE; if a shallow clone lacks it, all commits."""
    since = SINCE.read_text().split()[0]
    known = subprocess.run(["git", "cat-file", "-e", f"{since}^{{commit}}"], capture_output=True, check=False).returncode == 0
    if not known:
        print(f"this clone lacks commit {since}, which {SINCE} names: checking every commit in it")
    log = ["git", "log", "--no-merges", "--format=%h %s", f"{since}..HEAD" if known else "HEAD"]
    return [line.split(" ", 1) for line in subprocess.check_output(log, text=True).splitlines()]


def main():
    found = commits()
    wrong = [f"{commit} {subject}: {complaint}" for commit, subject in found for complaint in complaints(subject)]
    print(*wrong, f"{len(found)} subjects, {len(wrong)} complaints", sep="\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
