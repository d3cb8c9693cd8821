"""Whether the walk of a device ID in the datapath's README names functions that exist, in the files that it says."""

import pathlib
import re
import sys

README = pathlib.Path("deviceplugin/datapath/README.md")
HEADING = "## A device ID on its way to the kernel\n"
STATION = re.compile(r"`([A-Za-z:]+)` \(`([a-z_/]+\.cc)`\)")  # `Class::function` (`folder/file.cc`)


def main():
    walk = README.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    stations = STATION.findall(walk)
    if len(stations) < 10:
        sys.exit(f"{README}: {len(stations)} functions below '{HEADING.strip()}'; expected ten or more")
    missing = [f"{README}: {name} is not in {file}" for name, file in stations if not _defines(file, name)]
    if missing:
        sys.exit("\n".join(missing))


def _defines(file, name):
    path = next((path for path in (README.parent / file, pathlib.Path(file)) if path.exists()), None)
    return path and re.search(rf"^[\w].*\b{name}\(", path.read_text(encoding="utf-8"), re.MULTILINE)


if __name__ == "__main__":
    main()
