#!/bin/bash
# Demonstrates one pod on two kinds of node: on VFs of a machine with SR-IOV, and on software ports elsewhere. Usage:
# demo_hardware.sh DIR; DIR is the test cluster's, the images are those of build/image, and the machine is that of tests/vm,
# under emulation: its speed is not representative.
set -euo pipefail
. "$(dirname "$0")/settings.sh"
root=$(cd "$here/../.." && pwd)
. "$here/narrate.sh"

machine=
also_clean() {
  [ -n "$machine" ] || return 0
  exec 5>&-   # end its standard input: it removes its node and exits
  wait "$machine" 2> /dev/null || true
  rm -f "$dir/node3.out" "$dir/node3.in"
}

chapter "A Kubernetes of two nodes, and a third in a virtual machine whose NIC has four VFs"
"$here/up.sh" "$dir"
rm -f "$dir/node3.in"
mkfifo "$dir/node3.in"
"$here/hardware_node.py" "$dir" < "$dir/node3.in" > "$dir/node3.out" 2>&1 &
machine=$!
exec 5> "$dir/node3.in"
note "The machine boots under emulation, which takes a minute or two."
up() { grep -q "node3 is ready" "$dir/node3.out" || { kill -0 "$machine" || { cat "$dir/node3.out" >&2; exit 1; }; false; }; }
wait_for 480 "node3" up
show kubectl get nodes -o wide

chapter "Installing the project for nodes with hardware"
show kubectl apply -k manifests/hardware
note "One resource for all nodes. On nodes with VFs its devices are VFs 0 and 1, for which the project makes vDPA devices:"
show kubectl apply -f demo/hardware.yaml
show kubectl label node node1 node3 vdpa.io/node=true
offered() { [ "$(kubectl get node "$1" -o 'jsonpath={.status.allocatable.vdpa\.io/nic}')" = 2 ]; }
wait_for 120 "vdpa.io/nic on node1" offered node1
wait_for 300 "vdpa.io/nic on node3" offered node3
kubectl -n vdpa-system wait --for=condition=Ready pods --all --timeout=300s > /dev/null
show kubectl vdpa status
plugin=$(kubectl -n vdpa-system get pods -l app.kubernetes.io/name=vdpa-device-plugin --field-selector spec.nodeName=node3 -o name)
note "Why node3 offers these devices:"
show kubectl -n vdpa-system exec "$plugin" -- vdpactl explain

chapter "The same two pods on both kinds of node: one image, one command, one resource"
for node in node1 node3; do
  sed "s/name: receiver/name: receiver-$node/; s/name: sender/name: sender-$node/
       s/^  terminationGracePeriodSeconds: 1/  nodeSelector: {kubernetes.io\/hostname: $node}\n&/
       s/ \"vlan\": 100,//" "$here/demo/pods.yaml" | kubectl apply -f - > /dev/null
done
note "\$ kubectl apply -f ...   # demo/pods.yaml, once for each node"
kubectl wait --for=condition=Ready pod/{sender,receiver}-{node1,node3} --timeout=300s > /dev/null
show kubectl get pods -o wide
for pod in receiver-node1 receiver-node3; do
  show kubectl exec "$pod" -- sh -c 'cat /run/vdpa/*/device.json /run/vdpa/*/eal-args'
done

chapter "Packets on both, as the receivers count them"
note "node1: two software ports of one switch. node3: two VFs, wired to each other; no program of the host touches a packet."
counter() { kubectl logs "$1" --tail=5 | sed -n 's/^received .*, \([0-9]*\) in all$/\1/p' | tail -n 1; }
more() { local now; now=$(counter "$1"); [ "${now:-0}" -gt "${2:-0}" ]; }
for node in node1 node3; do wait_for 120 "packets on $node" more "receiver-$node" 0; done
for _ in 1 2 3 4; do
  for pod in receiver-node1 receiver-node3; do printf '  %s: %12s packets' "$pod" "$(counter "$pod")"; done
  echo
  sleep 3
done
for node in node1 node3; do wait_for 60 "packets on $node" more "receiver-$node" "$(counter "receiver-$node")"; done
datapath=$(kubectl -n vdpa-system get pods -l app.kubernetes.io/name=vdpa-datapath --field-selector spec.nodeName=node3 -o name)
show kubectl -n vdpa-system exec "$datapath" -c vdpa-datapath -- vdpactl attachments
