#!/bin/bash
# Ends a node's kubelet and returns when its successor answers. Usage: restart-kubelet.sh DIR NODE
set -euo pipefail
. "$(dirname "$0")/settings.sh"
node=$2
old=$(cat "$state/$node/kubelet.pid")     # as the node numbers it

on_node "$node" kill "$old"
another() { [ "$(cat "$state/$node/kubelet.pid")" != "$old" ]; }
wait_for 30 "a new kubelet process on $node" another
wait_for 60 "the kubelet of $node" kubectl get --raw "/api/v1/nodes/$node/proxy/healthz"
