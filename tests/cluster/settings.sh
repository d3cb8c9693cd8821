# Shared by the cluster's scripts; sourced with the cluster's directory as the first argument. No script uses all of it:
# shellcheck disable=SC2034
dir=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=$dir/run                      # all files that a running cluster writes; down.sh removes it
nodes="node1 node2"
# Nodes with the thick Multus, which knows the pods beforehand. The other nodes' thin one asks the API server for a pod and gives
# it a quarter of a second, again and again for 2.5 s: node3, an emulated machine, often needs longer for the connection.
thick_nodes="node2 node3"
control_plane="etcd kube-apiserver kube-scheduler kube-controller-manager"

# Addresses are from a documentation range, and ports are unusual ones, since Debian starts an etcd of its own.
address=198.51.100.1                # the API server's; node1 has ...11 and node2 ...12
api=$address:36443
etcd_client=127.0.0.1:32379
etcd_peer=127.0.0.1:32380
bridge=vdpa-test0                   # nodes and control plane
uplink_bridge=vdpa-test1            # the second network, whose link is uplink0 on the nodes
cgroup=vdpa-test                    # in every hierarchy, with a folder for each node

kubectl() { "$dir/bin/kubectl" --kubeconfig="$dir/kubeconfig" "$@"; }

# node_init NODE: prints the pid, in the host's namespace, of the node's first process.
node_init() { pgrep -P "$(cat "$state/$1/pid")" | head -n 1; }

# on_node NODE COMMAND...: runs a command in the node's namespaces.
on_node() { nsenter -t "$(node_init "$1")" --net --mount --uts --ipc --pid -- "${@:2}"; }

# wait_for SECONDS WHAT COMMAND...: waits until the command succeeds.
wait_for() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" > /dev/null 2>&1; do
    [ $SECONDS -lt "$end" ] || { echo "$what: not in time; see the logs in $state" >&2; return 1; }
    sleep 0.1
  done
}

# Prints the folders of the cgroup hierarchies: one with cgroup v2, one for each controller with v1.
hierarchies() {
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then echo /sys/fs/cgroup; else ls -d /sys/fs/cgroup/*/; fi
}
