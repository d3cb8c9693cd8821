#!/bin/bash
# Starts a two-node Kubernetes on this machine: etcd, API server, scheduler and controller manager as processes, and two nodes
# (node1, node2), each a containerd and a kubelet in namespaces of their own, with Multus in front of 'ptp': thin on node1,
# thick on node2. Usage: up.sh DIR [IMAGE.tar...]. build.sh makes DIR/bin; both nodes get the images (by default those of
# build/image). DIR/kubeconfig is the administrator's. down.sh DIR removes everything again, and so does this script when it
# fails or is interrupted.
set -euo pipefail
. "$(dirname "$0")/settings.sh"
shift
images=("$@")
[ $# -gt 0 ] || images=("$here"/../../build/image/*.tar)

"$here/down.sh" "$dir"
finished=
trap '[ -n "$finished" ] || { echo "the cluster did not come up; its logs stay in $state" >&2; "$here/down.sh" "$dir" keep-logs; }' EXIT
trap 'exit 130' INT TERM

mkdir -p "$state/log"
cd "$state"

# start NAME ARGUMENT...: starts a control plane program.
start() {
  setsid "$(PATH=$dir/bin:$PATH command -v "$1")" "${@:2}" > "log/$1" 2>&1 < /dev/null &
  echo $! > "$1.pid"
}

ip link add "$bridge" type bridge
ip addr add "$address/24" dev "$bridge"
ip link set "$bridge" up
ip link add "$uplink_bridge" type bridge
ip link set "$uplink_bridge" up

token=$(openssl rand -hex 16)
(umask 077; echo "$token,admin,1,system:masters" > tokens.csv)
openssl genrsa -out service-accounts.key 2048 2> /dev/null
(umask 077; cat > "$dir/kubeconfig") <<CONFIG
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://$api", insecure-skip-tls-verify: true}}]
users: [{name: admin, user: {token: $token}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
CONFIG

start etcd --data-dir="$state/etcd" --unsafe-no-fsync --listen-client-urls="http://$etcd_client" \
  --advertise-client-urls="http://$etcd_client" --listen-peer-urls="http://$etcd_peer"
start kube-apiserver --etcd-servers="http://$etcd_client" --cert-dir="$state/certificates" \
  --bind-address="$address" --secure-port="${api#*:}" --advertise-address="$address" --endpoint-reconciler-type=none \
  --token-auth-file=tokens.csv --authorization-mode=Node,RBAC --allow-privileged --kubelet-preferred-address-types=InternalIP \
  --service-cluster-ip-range=10.96.0.0/16 --service-account-issuer=https://kubernetes.default.svc \
  --service-account-key-file=service-accounts.key --service-account-signing-key-file=service-accounts.key
wait_for 60 "the API server" kubectl get --raw /readyz
start kube-scheduler --kubeconfig="$dir/kubeconfig" --leader-elect=false
start kube-controller-manager --kubeconfig="$dir/kubeconfig" --leader-elect=false \
  --service-account-private-key-file=service-accounts.key --root-ca-file="$state/certificates/apiserver.crt"
kubectl apply -f "$here/multus-crd.yaml" > /dev/null

# start_node NAME ADDRESS: makes its links and starts it.
start_node() {
  local node=$1 link
  mkdir -p "$node"
  ip netns add "vdpa-$node"
  ip link add "vdpa-$node" type veth peer name eth0 netns "vdpa-$node"
  ip link set "vdpa-$node" master "$bridge" up
  ip link add "vdpa-up-$node" type veth peer name uplink0 netns "vdpa-$node"
  ip link set "vdpa-up-$node" master "$uplink_bridge" up
  ip -n "vdpa-$node" addr add "$2/24" dev eth0
  for link in lo eth0 uplink0; do ip -n "vdpa-$node" link set "$link" up; done
  setsid "$here/node.sh" "$dir" "$node" "$2" "${images[@]}" > "log/$node" 2>&1 < /dev/null &
  echo $! > "$node/pid"
}
start_node node1 "${address}1"
start_node node2 "${address}2"
for node in $nodes; do
  wait_for 90 "$node Ready" kubectl wait --for=condition=Ready "node/$node" --timeout=1s
done
finished=1
