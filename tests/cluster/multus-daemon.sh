#!/bin/bash
# The thick Multus on a node of the test cluster, as its DaemonSet runs it: in a mount namespace that receives the host's mounts
# but propagates none back, with plugins in a chroot of the host's files and the API server configured as for a pod. It writes
# containerd's 00-multus.conf itself, with multus-shim in it. Usage (from node.sh): multus-daemon.sh DIR NODE
set -euo pipefail
. "$(dirname "$0")/settings.sh"
node=$2

if [ -z "${in_namespace:-}" ]; then
  in_namespace=1 exec unshare --mount --propagation slave "$0" "$@"
fi
root=$state/$node/multus-root account=/run/secrets/kubernetes.io/serviceaccount
mkdir -p "$root"
mount --rbind / "$root"
mkdir -p $account
mount -t tmpfs tmpfs $account
sed -n 's/.*token: \([0-9a-f]*\).*/\1/p' "$dir/kubeconfig" > $account/token
cp "$state/certificates/apiserver.crt" $account/ca.crt
cat > "$state/$node/multus-daemon.json" <<CONF
{"cniVersion": "1.0.0", "chrootDir": "$root", "logFile": "$state/log/$node-multus", "logLevel": "verbose",
 "cniConfigDir": "/var/lib/cni/net.d", "multusAutoconfigDir": "/var/lib/cni/net.d", "multusConfigFile": "auto"}
CONF
export KUBERNETES_SERVICE_HOST=${api%:*} KUBERNETES_SERVICE_PORT=${api#*:} MULTUS_NODE_NAME=$node
exec "$dir/bin/multus-daemon" -config "$state/$node/multus-daemon.json" > "$state/log/$node-multus-daemon" 2>&1
