"""How a release was made: an in-toto statement with SLSA's provenance, https://slsa.dev/spec/v1.0/provenance. It is not
signed, and has no times, so that everyone who builds the same commit with the same packages gets the same statement."""

import hashlib
import json
import subprocess
import urllib.parse


def provenance(version, commit, image, packages, files):
    """`commit`: of the source, or None for a tree that differs from every commit. `image`: the value of --image, or None.
    `packages`: Debian's packages with which it was built. `files`: what was made."""
    source = {"name": "source", "digest": {"gitCommit": commit}} if commit else \
        {"name": "source", "uri": "urn:vdpa:uncommitted"}
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": file.name, "digest": {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}}
                    for file in sorted(files)],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://vdpa.io/run-release/v1",
                "externalParameters": {"version": version, **({"image": image} if image else {})},
                "resolvedDependencies": [source, *map(_dependency, _installed(packages))]},
            "runDetails": {"builder": {"id": "https://vdpa.io/run-release", "version": {"vdpa": version}}}}}
    return json.dumps(statement, indent=1) + "\n"


def _installed(packages):
    shown = subprocess.check_output(["dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}\n", *packages], text=True)
    return sorted(set(shown.splitlines()))


def _dependency(line):
    name, version, architecture = line.split(" ")
    return {"name": name, "uri": f"pkg:deb/debian/{urllib.parse.quote(name, safe='')}@"
                                 f"{urllib.parse.quote(version, safe='~')}?arch={architecture}&distro=debian-12"}
