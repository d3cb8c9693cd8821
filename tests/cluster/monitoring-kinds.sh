#!/bin/bash
# Puts the Prometheus operator's definitions of the kinds in manifests/monitoring into DIR, from its Go module. Usage:
# monitoring-kinds.sh DIR [GO_CACHE].
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
dir=$(mkdir -p "$1" && cd "$1" && pwd)
go_cache=${2:-}
operator=github.com/prometheus-operator/prometheus-operator@v0.85.0
[ "$(cat "$dir/.stamp" 2> /dev/null)" != "$operator" ] || exit 0

. "$here/modules.sh"

source=$(go mod download -json "$operator" | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')
for kind in servicemonitors prometheusrules; do
  install -m 644 "$source/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" "$dir/$kind.yaml"
done
echo "$operator" > "$dir/.stamp"
