#!/bin/bash
# Demonstrates the project on the test cluster, from an empty cluster to packets, as operators and developers see it. Usage:
# demo.sh DIR [--keep]; DIR is the test cluster's, the images are those of build/image.
set -euo pipefail
. "$(dirname "$0")/settings.sh"
keep=${2:-}
root=$(cd "$here/../.." && pwd)
. "$here/narrate.sh"

chapter "A Kubernetes of two nodes: API server, scheduler, kubelets, containerd, Multus"
"$here/up.sh" "$dir"
show kubectl get nodes

chapter "The operator installs the project, and labels the nodes that take part"
show kubectl apply -k manifests
note "The demo offers only two devices, so that a third pod has to wait:"
show kubectl apply -f demo/config.yaml
show kubectl label node node1 vdpa.io/node=true
offered() { [ "$(kubectl get node node1 -o 'jsonpath={.status.allocatable.vdpa\.io/nic}')" = 2 ]; }
wait_for 60 "vdpa.io/nic on node1" offered
kubectl -n vdpa-system wait --for=condition=Ready pods --all --timeout=60s > /dev/null
show kubectl vdpa status

chapter "A developer starts two pods that request vdpa.io/nic: ordinary users, no capabilities"
show kubectl apply -f demo/pods.yaml
kubectl wait --for=condition=Ready pod/sender pod/receiver --timeout=60s > /dev/null
note "Each pod finds the socket of its device, and the argument with which any DPDK program uses it:"
show kubectl exec sender -- sh -c 'id; ls /run/vdpa/*; cat /run/vdpa/*/eal-args'
show kubectl vdpa attachments

chapter "One sends 64-byte packets, the other one counts them: two of this machine's $(nproc) cores poll"
passing() { kubectl logs receiver | grep -q received; }
wait_for 60 "packets at the receiver" passing
follow 5 kubectl logs --follow --tail=0 receiver
note "The node counts the same packets, from outside the pods:"
show kubectl -n vdpa-system exec ds/vdpa-datapath -c vdpa-datapath -- vdpactl stats

chapter "A third pod: no device is free, and the scheduler says so"
show kubectl apply -f demo/third.yaml
refused() { kubectl get events --field-selector involvedObject.name=third,reason=FailedScheduling -o name | grep -q .; }
wait_for 30 "the scheduler's word on the third pod" refused
kubectl get events --field-selector involvedObject.name=third,reason=FailedScheduling \
  -o 'jsonpath={.items[0].message}{"\n"}' | sed 's/\. .*//'
note "It gets the device of the first one that ends:"
show kubectl delete pod sender
kubectl wait --for=condition=Ready pod/third --timeout=60s > /dev/null
show kubectl get pods

next="Try next:
  ./run demo --keep          leaves the cluster running, to look around
  ./run demo hardware        the same pods on the VFs of a NIC, in a virtual machine
  README.md                  the first ten minutes on a cluster of your own"
if [ "$keep" = --keep ]; then
  trap - EXIT ERR
  chapter "Left running"
  cat <<HELP
Try next, after
  export KUBECONFIG=$KUBECONFIG PATH=$root/deviceplugin/ctl:$dir/bin:\$PATH

  kubectl delete pod third receiver && kubectl vdpa test    # two pods that measure a device
  kubectl vdpa explain                                      # why a node offers a device
  kubectl -n vdpa-system exec ds/vdpa-datapath -- vdpactl stats --watch
  kubectl -n vdpa-system logs ds/vdpa-device-plugin
  $here/down.sh $dir      # removes everything again
HELP
fi
