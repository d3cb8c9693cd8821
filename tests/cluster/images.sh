#!/bin/bash
# Builds the container images without a registry, from a build of the project and Debian's packages: the project's own, one
# for sample applications (dpdk-testpmd and a shell), and the sandbox's. Usage: images.sh BUILD OUT; OUT gets a
# docker-archive of each.
set -euo pipefail

cd "$(dirname "$0")/../.."
build=$1
mkdir -p "$2"
out=$(cd "$2" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# image FILE NAME INPUTS COMMAND...: runs COMMAND DIRECTORY, unless nothing that goes into the image has changed.
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
image sample "localhost/vdpa-sample:$version" "" \
  manifests/image/rootfs.sh "$work/sample" /usr/bin/dpdk-testpmd -- mempool_ring bus_vdev net_virtio
image pause localhost/pause:1 "" manifests/image/rootfs.sh "$work/pause"
