#!/bin/bash
# Builds the test cluster's programs (Kubernetes and Multus) from Go modules into DIR/bin. Usage: build.sh DIR. Compiling
# Kubernetes takes about ten minutes on two cores; DIR keeps the result, and a stamp of the versions decides whether it is up to
# date.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
dir=$(mkdir -p "$1/bin" && cd "$1" && pwd)
kubernetes=v1.34.2
staging_version=v0.${kubernetes#v1.}
multus=v4.2.2
stamp="kubernetes $kubernetes multus $multus"
[ "$(cat "$dir/bin/.stamp" 2>/dev/null)" != "$stamp" ] || exit 0

. "$here/modules.sh"

# The staging modules are part of Kubernetes' own repository; published under versions of their own, they must be named.
staging="api apiextensions-apiserver apimachinery apiserver cli-runtime client-go cloud-provider cluster-bootstrap
  code-generator component-base component-helpers controller-manager cri-api cri-client csi-translation-lib
  dynamic-resource-allocation endpointslice externaljwt kms kube-aggregator kube-controller-manager kube-proxy
  kube-scheduler kubectl kubelet metrics mount-utils pod-security-admission sample-apiserver sample-cli-plugin
  sample-controller"
commands=()
for c in kubelet kube-apiserver kube-scheduler kube-controller-manager kubectl; do commands+=("k8s.io/kubernetes/cmd/$c"); done

echo "Kubernetes $kubernetes: fetching modules"
module kubernetes "k8s.io/kubernetes@$kubernetes"
for m in $staging; do echo "replace k8s.io/$m => k8s.io/$m $staging_version"; done >> go.mod
import_commands "${commands[@]}"
echo "Kubernetes $kubernetes: compiling"
version=k8s.io/component-base/version
go build -trimpath -o "$dir/bin/" \
  -ldflags "-s -w -X $version.gitVersion=$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=34" "${commands[@]}"

echo "Multus $multus: compiling"
m=gopkg.in/k8snetworkplumbingwg/multus-cni.v4
module multus "$m@$multus"
import_commands "$m/cmd/multus" "$m/cmd/multus-daemon" "$m/cmd/multus-shim"
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$dir/bin/" "$m/cmd/multus" "$m/cmd/multus-daemon" "$m/cmd/multus-shim"

echo "$stamp" > "$dir/bin/.stamp"
