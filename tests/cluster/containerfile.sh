#!/bin/bash
# Builds the image from the Containerfile, as in manifests/README.md, and compares it with that of `./run image`: the same files,
# and programs that start. Without a registry, mmdebstrap makes Debian's base image. Downloads half a gigabyte of packages and
# compiles everything without a cache: 10 to 20 minutes on two cores. Usage: containerfile.sh IMAGE.tar, the archive from
# images.sh.
set -euo pipefail

cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/context" "$work/expected" "$work/tmp"
mkdir "$work/archive"
tar -xf "$1" -C "$work/archive"
# blob DESCRIPTOR FILE: the path of the blob whose descriptor the jq expression selects in a JSON file.
blob() { echo "$work/archive/blobs/sha256/$(jq -r "$1 | .digest | ltrimstr(\"sha256:\")" "$2")"; }
layer=$(blob '.layers[0]' "$(blob '.manifests[0]' "$work/archive/index.json")")
(git ls-files --cached --others --exclude-standard | tar -c -T -) | tar -x -C "$work/context"
export TMPDIR=$work/tmp
build=(buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run")

mmdebstrap --variant=minbase --quiet bookworm "$work/base.tar"
container=$("${build[@]}" from scratch)
"${build[@]}" add --quiet "$container" "$work/base.tar" /
"${build[@]}" commit --quiet --rm "$container" docker.io/library/debian:12
rm "$work/base.tar"

"${build[@]}" bud --isolation chroot --network host --pull=false -t registry.example/vdpa:test -f Containerfile "$work/context"
container=$("${build[@]}" from --pull=false registry.example/vdpa:test)
root=$("${build[@]}" mount "$container")
(cd "$root" && find . ! -type d | sort) > "$work/files"
# A container includes its mounts; the archive names a directory as "x/".
tar -tf "$layer" | sed 's|^|./|' | grep -v '/$' | sort > "$work/expected-files"
diff "$work/expected-files" "$work/files"
for program in $(manifests/image/vdpa.sh . | sed 's|.*/||; /^vdpa$/d'); do
  chroot "$root" "$program" --version
done
CNI_COMMAND=VERSION chroot "$root" vdpa < /dev/null | grep -q cniVersion
