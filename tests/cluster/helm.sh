#!/bin/bash
# Builds Helm, kustomize and nfd-labels, which makes labels by Node Feature Discovery's code, from Go modules into DIR/bin.
# Usage: helm.sh DIR [GO_CACHE]. Takes five minutes on two cores; DIR keeps the result, and a stamp of the versions and of
# nfd-labels decides whether it is up to date. Modules are kept in GO_CACHE, by default DIR/go.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
dir=$(mkdir -p "$1/bin" && cd "$1" && pwd)
go_cache=${2:-}
helm=v3.19.2
kustomize=v5.7.1
nfd=v0.17.3
stamp="helm $helm kustomize $kustomize nfd $nfd $(cksum < "$here/nfd-labels.go")"
[ "$(cat "$dir/bin/.stamp" 2>/dev/null)" != "$stamp" ] || exit 0
. "$here/modules.sh"

m=helm.sh/helm/v3
commands=("$m/cmd/helm" sigs.k8s.io/kustomize/kustomize/v5)
module helm "$m@$helm" "sigs.k8s.io/kustomize/kustomize/v5@$kustomize"
import_commands "${commands[@]}"
# As Helm's own Makefile: for charts that are rendered without a cluster, the Kubernetes of its client.
minor=$(go list -m -f '{{.Version}}' k8s.io/client-go | cut -d . -f 2)
flags="-s -w -X $m/internal/version.version=$helm"
for package in lint/rules chartutil; do
  flags+=" -X $m/pkg/$package.k8sVersionMajor=1 -X $m/pkg/$package.k8sVersionMinor=$minor"
done
CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$dir/bin/" "${commands[@]}"

m=sigs.k8s.io/node-feature-discovery
module nfd "$m@$nfd" "$m/api/nfd@$nfd"
cp "$here/nfd-labels.go" main.go
go mod tidy > tidy.log 2>&1 || { cat tidy.log >&2; exit 1; }
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$dir/bin/nfd-labels" .

echo "$stamp" > "$dir/bin/.stamp"
