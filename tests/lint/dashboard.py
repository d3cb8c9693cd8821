"""Whether Grafana knows every key of the dashboard: what its types, as its own SDK has them, lose on the way through.

Grafana ignores a key that it does not know, so a misspelled one goes unnoticed."""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "run"))

from tools import package

sys.path.insert(0, str(package("grafana-foundation-sdk")))

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

FILE = pathlib.Path("manifests/monitoring/dashboard.json")


def lost(written, known, place):
    if isinstance(written, dict):
        for key, value in written.items():
            if key in known:
                yield from lost(value, known[key], f"{place}.{key}")
            else:
                yield f"{place}.{key} is unknown"
    elif isinstance(written, list):
        for index, pair in enumerate(zip(written, known, strict=True)):
            yield from lost(*pair, f"{place}[{index}]")
    elif written != known:
        yield f"{place} is {json.dumps(written)}, read as {json.dumps(known)}"


def main():
    register_default_plugins()
    written = json.loads(FILE.read_text(encoding="utf-8"))
    known = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(written)))
    found = list(lost(written, known, str(FILE)))
    print("\n".join(found) or f"dashboard: Grafana knows every key of {FILE}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
