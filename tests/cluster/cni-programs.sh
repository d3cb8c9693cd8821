#!/bin/bash
# Builds the CNI project's plugins and cnitool from Go modules into DIR/bin: Debian's plugins are older than CNI 1.1.0. Usage:
# cni-programs.sh DIR [GO_CACHE]. Takes a minute on two cores; DIR keeps the result, and a stamp of the versions decides whether
# it is up to date. Modules are kept in GO_CACHE, by default DIR/go.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
dir=$(mkdir -p "$1/bin" && cd "$1" && pwd)
go_cache=${2:-}
plugins=v1.9.1
cni=v1.3.1
stamp="plugins $plugins cni $cni"
[ "$(cat "$dir/bin/.stamp" 2>/dev/null)" != "$stamp" ] || exit 0
. "$here/modules.sh"

m=github.com/containernetworking/plugins/plugins
commands=("$m"/ipam/{host-local,static,dhcp} "$m"/meta/tuning
  github.com/containernetworking/cni/cnitool)
module cni "github.com/containernetworking/plugins@$plugins" "github.com/containernetworking/cni@$cni"
import_commands "${commands[@]}"
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$dir/bin/" "${commands[@]}"

echo "$stamp" > "$dir/bin/.stamp"
