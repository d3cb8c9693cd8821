#!/bin/bash
# Demonstrates the project on the test cluster, from an empty cluster to packets, as operators and developers see it. Usage:
# demo.sh DIR [--keep]; DIR is the test cluster's, the images are those of build/image.
set -euo pipefail
. "$(dirname "$0")/settings.sh"
keep=${2:-}
root=$(cd "$here/../.." && pwd)
. "$here/narrate.sh"

chapter "A Kubernetes of two nodes: etcd, API server, scheduler, containerd, kubelet, Multus"
"$here/up.sh" "$dir"
show kubectl get nodes -o wide

chapter "Installing the project, as an operator does"
show kubectl apply -k "$root/manifests"
note "The demo offers only two devices, so that a third pod has to wait:"
show kubectl apply -f "$here/demo/config.yaml"
note "The daemons run on the nodes that the operator labels:"
show kubectl label node node1 vdpa.io/node=true
offered() { [ "$(kubectl get node node1 -o 'jsonpath={.status.allocatable.vdpa\.io/nic}')" = 2 ]; }
wait_for 60 "vdpa.io/nic on node1" offered
kubectl -n vdpa-system wait --for=condition=Ready pods --all --timeout=60s > /dev/null
show kubectl -n vdpa-system get pods -o wide
show kubectl get nodes -o 'custom-columns=NODE:.metadata.name,ALLOCATABLE vdpa.io/nic:.status.allocatable.vdpa\.io/nic'

chapter "Two pods that request vdpa.io/nic: ordinary users without capabilities"
show kubectl apply -f "$here/demo/pods.yaml"
kubectl wait --for=condition=Ready pod/left pod/right --timeout=60s > /dev/null
show kubectl get pods -o wide
note "Each pod finds its device's socket, a description, and arguments for a DPDK program:"
for pod in left right; do
  show kubectl exec "$pod" -- sh -c 'id; ls -l /run/vdpa/*/; cat /run/vdpa/*/device.json /run/vdpa/*/eal-args'
done

chapter "Packets per second, as the node counts them: each pod returns every packet that it receives"
note "The switch and the pods poll: three programs share this machine's $(nproc) cores, and the scheduler's turns limit the rate."
"$here/demo/rates.py" "$dir" 8
show kubectl -n vdpa-system exec ds/vdpa-datapath -c vdpa-datapath -- vdpactl attachments

chapter "A third pod: no device is free"
show kubectl apply -f "$here/demo/third.yaml"
refused() { kubectl get events --field-selector involvedObject.name=third,reason=FailedScheduling -o name | grep -q .; }
wait_for 30 "the scheduler's word on the third pod" refused
show kubectl get pod third
note "The scheduler reports:"
kubectl get events --field-selector involvedObject.name=third,reason=FailedScheduling \
  -o 'jsonpath={.items[0].message}{"\n"}' | sed 's/^/  /'

chapter "One of the two is deleted, and the third runs on its device"
show kubectl delete pod right
kubectl wait --for=condition=Ready pod/third --timeout=60s > /dev/null
show kubectl get pods -o wide
"$here/demo/rates.py" "$dir" 4

if [ "$keep" = --keep ]; then
  trap - EXIT ERR
  chapter "Left running"
  cat <<HELP
  export KUBECONFIG=$KUBECONFIG PATH=$dir/bin:\$PATH
  kubectl get pods -A -o wide
  kubectl -n vdpa-system exec ds/vdpa-datapath -- vdpactl stats --watch
  kubectl -n vdpa-system logs ds/vdpa-device-plugin
  $here/down.sh $dir      # removes everything again
HELP
fi
