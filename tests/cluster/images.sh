#!/bin/bash
# Builds the container images without a container engine, from a build of the project and Debian's packages: the project's own,
# one for sample applications (dpdk-testpmd and a shell), and the sandbox's. Usage: images.sh BUILD OUT; OUT gets an
# OCI archive of each, and OUT/next one of the project with the datapath's programs of another version, to test updates.
set -euo pipefail

cd "$(dirname "$0")/../.."
build=$1
mkdir -p "$2"
out=$(cd "$2" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# image FILE NAME INPUTS COMMAND...: runs COMMAND DIRECTORY, unless all inputs of the image are unchanged.
image() {
  local file=$1 name=$2 inputs=$3 stamp
  shift 3
  # shellcheck disable=SC2086
  stamp=$({ echo "$name $*"; cat manifests/image/* $inputs; dpkg-query -W; } | sha256sum)
  [ ! -f "$out/$file.tar" ] || [ "$(cat "$out/$file.stamp" 2> /dev/null)" != "$stamp" ] || { echo "$file.tar: unchanged"; return; }
  "$@"
  /usr/bin/python3 manifests/image/archive.py "$work/$file" "$name" "$out/$file.tar"
  echo "$stamp" > "$out/$file.stamp"
  echo "$file.tar: $name, $(du -h "$out/$file.tar" | cut -f1)"
}

version=$(sed -n "s/^ *version: '\(.*\)',/\1/p" meson.build)
image vdpa "localhost/vdpa:$version" "$(manifests/image/vdpa.sh "$build")" manifests/image/vdpa.sh "$build" "$work/vdpa"

# next_programs DIR: makes a view of BUILD for the image's script, with the programs of another version from the tests.
next_programs() {
  local program other
  for program in $(manifests/image/vdpa.sh "$build"); do
    other=$build/tests/next/$(basename "$program")
    [ -x "$other" ] || other=$program
    install -D "$other" "$work/next-build/${program#"$build"/}"
  done
  manifests/image/vdpa.sh "$work/next-build" "$1"
}
mkdir -p "$out/next"
image next/vdpa "localhost/vdpa:$version-next" "$(manifests/image/vdpa.sh "$build") $(echo "$build"/tests/next/vdpa-{datapath,worker,switch,pmd})" \
  next_programs "$work/next/vdpa"

image sample "localhost/vdpa-sample:$version" "" \
  manifests/image/rootfs.sh "$work/sample" /usr/bin/dpdk-testpmd -- mempool_ring bus_vdev net_virtio
image pause localhost/pause:1 "" manifests/image/rootfs.sh "$work/pause"
