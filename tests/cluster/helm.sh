#!/bin/bash
# Builds Helm from Go modules into DIR/bin. Usage: helm.sh DIR [GO_CACHE]. Takes a few minutes on two cores, less after Kubernetes,
# whose modules it shares; DIR keeps the result, and a stamp of the version decides whether it is up to date. Modules are kept in
# GO_CACHE, by default DIR/go.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
dir=$(mkdir -p "$1/bin" && cd "$1" && pwd)
go_cache=${2:-}
helm=v3.19.2
stamp="helm $helm"
[ "$(cat "$dir/bin/.stamp" 2>/dev/null)" != "$stamp" ] || exit 0
. "$here/modules.sh"

m=helm.sh/helm/v3
module helm "$m@$helm"
import_commands "$m/cmd/helm"
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X $m/internal/version.version=$helm" -o "$dir/bin/" "$m/cmd/helm"

echo "$stamp" > "$dir/bin/.stamp"
