"""Whether the documents' relative links, their anchors, and the paths that they name exist."""

import pathlib
import re
import sys
import urllib.parse

sys.path.insert(1, str(pathlib.Path(__file__).parents[1] / "harness"))

import documents

ROOT = documents.ROOT
# [text](target), ![text](target), [name]: target, and the attributes of HTML.
LINK = re.compile(r"""\]\(<?([^()\s>]+)>?(?:\s+"[^"]*")?\)|^\[[^\]]+\]:\s*(\S+)|(?:href|src|srcset)="([^"]+)\"""", re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(.+?)(?: +#+)?$", re.MULTILINE)
ANCHOR = re.compile(r"""<a (?:id|name)="([^"]+)">""")
CODE = re.compile(r"`([^`\n]+)`")
# A path from the top of the repository. Placeholders and globs are not.
PATH = re.compile(r"^(?:deviceplugin|cni|common|manifests|tests|\.ci)/[\w./-]*$")


def main():
    errors = []
    for document in documents.documents():
        text = _without_blocks((ROOT / document).read_text(encoding="utf-8"))
        errors += [f"{document}: {error}" for error in (*_links(document, text), *_paths(document, text))]
    if errors:
        sys.exit("\n".join(errors))


def _links(document, text):
    for match in LINK.finditer(CODE.sub("", text)):
        link = next(group for group in match.groups() if group)
        if re.match(r"[a-z][a-z+.-]*:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / urllib.parse.unquote(path) if path else ROOT / document
        if not target.exists():
            yield f"the link {link} leads nowhere"
        elif ROOT not in (target.resolve(), *target.resolve().parents):
            yield f"the link {link} leads out of the repository"
        elif anchor and (target.suffix != ".md" or anchor not in _anchors(target.read_text(encoding="utf-8"))):
            yield f"the link {link} has an anchor that {target.name} lacks"


def _paths(document, text):
    for name in CODE.findall(text):
        if PATH.match(name) and not any((base / name).exists() for base in (ROOT, (ROOT / document).parent)):
            yield f"names {name}, which does not exist"


def _anchors(text):
    """As GitHub makes them: lower case, spaces to hyphens, other punctuation dropped, a number for each repetition."""
    text = _without_blocks(text)
    anchors = set(ANCHOR.findall(text))
    count = {}
    for heading in HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        count[slug] = count.get(slug, -1) + 1
        anchors.add(slug if count[slug] == 0 else f"{slug}-{count[slug]}")
    return anchors


def _without_blocks(text):
    """The text without its fenced blocks."""
    lines, end = [], None
    for line in text.splitlines():
        fence = documents.FENCE.match(line)
        if end is None and fence:
            end = fence["ticks"]
        elif end is not None:
            end = None if line.strip() == end else end
        else:
            lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
