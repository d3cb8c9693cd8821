#!/bin/bash
# One node of the test cluster: containerd and kubelet in network, mount, UTS, IPC and PID namespaces of their own, with their
# own /run, /var and /opt, and all their processes in a cgroup of their own. Killing its first process ends everything. Usage
# (from up.sh, and in the test machine from hardware_node.py): node.sh DIR NAME ADDRESS IMAGE.tar...
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
node=$2 address=$3
shift 3
home=$state/$node

if [ $$ != 1 ]; then
  for hierarchy in $(hierarchies); do
    mkdir -p "$hierarchy/$cgroup/$node/system"
    for folder in "$hierarchy" "$hierarchy/$cgroup" "$hierarchy/$cgroup/$node"; do
      # cgroup v2: children get only the controllers that their parent enables.
      [ ! -f "$folder/cgroup.subtree_control" ] || sed 's/\</+/g' "$folder/cgroup.controllers" > "$folder/cgroup.subtree_control"
    done
    if [ -f "$hierarchy/cpuset.mems" ]; then   # cgroup v1: unusable until it has processors and memory
      for folder in $cgroup $cgroup/$node $cgroup/$node/system; do
        for f in cpuset.cpus cpuset.mems; do cat "$hierarchy/$f" > "$hierarchy/$folder/$f"; done
      done
    fi
    echo $$ > "$hierarchy/$cgroup/$node/system/cgroup.procs"
  done
  # A virtual machine needs no network namespace.
  enter=()
  [ ! -e "/run/netns/vdpa-$node" ] || enter=(nsenter --net="/run/netns/vdpa-$node")
  exec "${enter[@]}" unshare --mount --propagation private --uts --ipc --pid --fork --kill-child \
    --mount-proc "$0" "$dir" "$node" "$address" "$@"
fi

# From here on this is the node's first process. Mounts are shared within the node, as on a systemd machine.
mount --make-rshared /
hostname "$node"
mkdir -p "$home"/{var,opt}
mount -t tmpfs -o mode=755 tmpfs /run
mount --bind "$home/var" /var
mount --bind "$home/opt" /opt
mount --make-rshared /run
mkdir -p /var/{lib/{kubelet,cni/net.d},log,tmp} /opt/cni/bin /run/containerd
ln -sfn /run /var/run

cp /usr/lib/cni/{loopback,ptp,host-local} "$dir/bin/"{multus,multus-shim} /opt/cni/bin/
install -m 600 "$dir/kubeconfig" /var/lib/cni/kubeconfig
default_network='{"cniVersion": "1.0.0", "name": "default", "type": "ptp",
  "ipam": {"type": "host-local", "subnet": "10.244.'${address##*.}'.0/24"}}'
if [[ " $thick_nodes " == *" $node "* ]]; then
  echo "$default_network" > /var/lib/cni/net.d/10-default.conf
  "$here/multus-daemon.sh" "$dir" "$node" &
  wait_for 120 "Multus of $node" test -f /var/lib/cni/net.d/00-multus.conf
else
  cat > /var/lib/cni/net.d/00-multus.conf <<CONF
{"cniVersion": "1.0.0", "name": "multus", "type": "multus", "kubeconfig": "/var/lib/cni/kubeconfig",
 "logFile": "$state/log/$node-multus", "logLevel": "verbose", "delegates": [$default_network]}
CONF
fi
cat > "$home/containerd.toml" <<CONF
version = 2
root = "$home/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/var/lib/cni/net.d"
CONF
cat > "$home/kubelet.yaml" <<CONF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup/$node
enforceNodeAllocatable: []
failSwapOn: false
localStorageCapacityIsolation: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi}
resolvConf: ""
clusterDNS: [10.96.0.10]   # no server listens there; without it every pod gets a warning
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
CONF

containerd --config "$home/containerd.toml" > "$state/log/$node-containerd" 2>&1 &
wait_for 30 "containerd of $node" ctr version
for image in "$@"; do ctr -n k8s.io images import "$image"; done

# Restarts the kubelet whenever it ends, as systemd does; restart-kubelet.sh ends it.
while true; do
  "$dir/bin/kubelet" --config="$home/kubelet.yaml" --kubeconfig=/var/lib/cni/kubeconfig \
    --hostname-override="$node" --node-ip="$address" >> "$state/log/$node-kubelet" 2>&1 &
  echo $! > "$home/kubelet.pid"
  wait $! || true
done
