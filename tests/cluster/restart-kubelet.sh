#!/bin/bash
# Restarts a node's kubelet and returns when the new one knows the node's pods. Usage: restart-kubelet.sh DIR NODE
set -euo pipefail
. "$(dirname "$0")/settings.sh"
node=$2
old=$(cat "$state/$node/kubelet.pid")     # its pid in the node's namespace

another() { [ "$(cat "$state/$node/kubelet.pid")" != "$old" ]; }
# Pods that come and go meanwhile would make the two lists differ: it is enough to find every pod that ran before.
running() { kubectl get pods -A --field-selector "spec.nodeName=$node,status.phase=Running" -o 'jsonpath={.items[*].metadata.uid}'; }
before=$(running)
knows_pods() {
  local known uid
  known=$(kubectl get --raw "/api/v1/nodes/$node/proxy/pods") || return 1
  for uid in $before; do
    [[ $known == *"$uid"* ]] || [[ " $(running) " != *" $uid "* ]] || return 1
  done
}

on_node "$node" kill "$old"
wait_for 30 "a new kubelet process on $node" another
wait_for 60 "the pods in the kubelet of $node" knows_pods
