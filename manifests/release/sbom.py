"""The list of software in the image and in the packages, as SPDX 2.3: https://spdx.github.io/spdx-spec/v2.3/"""

import datetime
import hashlib
import json
import re
import urllib.parse

from archives import epoch
from linked import fields, status


def sbom(version, image, root, static):
    """`image`: the digest of its manifest. `root`: the unpacked image. `static`: for each program, by its name, the Debian
    packages that it contains parts of."""
    document = Document(version)
    whole = document.add("Image", name="vdpa-image", versionInfo=version, primaryPackagePurpose="CONTAINER",
                         licenseDeclared="NOASSERTION",
                         externalRefs=[_purl(f"pkg:oci/vdpa@{urllib.parse.quote(image, safe='')}?tag={version}")])
    document.relate("SPDXRef-DOCUMENT", "DESCRIBES", whole)
    for name, packages in sorted(static.items()):
        digest = hashlib.sha256((root / "usr/bin" / name).read_bytes()).hexdigest()
        program = document.add(f"Program-{name}", name=name, versionInfo=version, packageFileName=f"/usr/bin/{name}",
                               primaryPackagePurpose="APPLICATION", licenseDeclared="Apache-2.0",
                               supplier="Organization: the authors of vDPA for Kubernetes",
                               checksums=[{"algorithm": "SHA256", "checksumValue": digest}])
        document.relate(whole, "CONTAINS", program)
        for package in sorted(packages):
            document.relate(program, "STATIC_LINK", document.debian(status(package)))
    for record in sorted((root / "var/lib/dpkg/status.d").iterdir()):
        document.relate(whole, "CONTAINS", document.debian(fields(record.read_text())))
    return document.text()


class Document:
    def __init__(self, version):
        made = datetime.datetime.fromtimestamp(epoch(), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.content = {
            "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"vdpa-{version}",
            "creationInfo": {"created": made, "creators": [f"Tool: run-release-{version}"]},
            "packages": [], "relationships": []}
        self.known = set()

    def add(self, identifier, **package):
        reference = "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", identifier)
        if reference not in self.known:
            self.known.add(reference)
            self.content["packages"].append({
                "SPDXID": reference, "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
                "licenseConcluded": "NOASSERTION", "copyrightText": "NOASSERTION", **package})
        return reference

    def debian(self, package):
        """Adds an installed package of Debian, once."""
        name, version = package["Package"], package["Version"]
        # "Source: gcc-12 (12.2.0-14)"; without it, the names are the same.
        source = package.get("Source", name).split(" ")[0]
        quoted = urllib.parse.quote(version, safe="~")
        maintainer = re.fullmatch(r"(.*?) <(.*)>", package["Maintainer"])
        return self.add(f"Debian-{name}-{package['Architecture']}", name=name, versionInfo=version,
                        supplier=f"Organization: {maintainer[1]} ({maintainer[2]})",
                        licenseDeclared="NOASSERTION", licenseComments=f"/usr/share/doc/{name}/copyright",
                        sourceInfo=f"built from Debian's source package {source}",
                        externalRefs=[_purl(f"pkg:deb/debian/{urllib.parse.quote(name, safe='')}@{quoted}"
                                            f"?arch={package['Architecture']}&distro=debian-12&upstream={source}")])

    def relate(self, one, how, other):
        self.content["relationships"].append(
            {"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other})

    def text(self):
        # Every document needs a name of its own; equal ones may share it.
        digest = hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()
        self.content["documentNamespace"] = f"https://vdpa.io/spdx/{self.content['name']}-{digest}"
        return json.dumps(self.content, indent=1) + "\n"


def _purl(locator):
    return {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator}
