#!/bin/bash
# Stops what up.sh started, including pods, and removes its links, namespaces, cgroups and files. Also works on a half-started
# cluster, and without any. Usage: down.sh DIR [keep-logs]
set -euo pipefail
. "$(dirname "$0")/settings.sh"
keep=${2:-}

# stop PIDFILE NAME: kills the process if it is still the one that was started, since pids are reused. An orderly stop is not
# needed: all data is removed.
stop() {
  local pid
  pid=$(cat "$1" 2> /dev/null) || return 0
  grep -aq "$2" "/proc/$pid/cmdline" 2> /dev/null || return 0
  kill -KILL "$pid" 2> /dev/null || return 0
  wait_for 10 "the end of $2 (pid $pid)" not_running "$pid"
}
not_running() { [ ! -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"; }

for node in $nodes; do
  stop "$state/$node/pid" node.sh    # with --kill-child, and with its pid 1 every process of the node
done
for program in $control_plane; do stop "$state/$program.pid" "$program"; done

# The processes of a node end by themselves now, including those that the datapath moved to a cgroup of its own. A cgroup stays
# busy until the last process is gone, a moment after it is no longer listed.
rmdir_all() {
  local h
  for h in $(hierarchies); do
    [ ! -d "$h/$cgroup" ] || find "$h/$cgroup" -depth -type d -exec rmdir {} + || return 1
    [ ! -d "$h/vdpa" ] || rmdir "$h/vdpa" || return 1
  done
}
wait_for 30 "the nodes' processes to end, and their cgroups to be empty" rmdir_all

for node in $nodes; do
  [ ! -e "/run/netns/vdpa-$node" ] || ip netns del "vdpa-$node"
done
for link in vdpa-node1 vdpa-node2 vdpa-node3 vdpa-up-node1 vdpa-up-node2 "$bridge" "$uplink_bridge"; do
  ip link del "$link" 2> /dev/null || true   # a node's link may have just gone with its namespace
  [ ! -e "/sys/class/net/$link" ] || { echo "cannot remove the link $link" >&2; exit 1; }
done

rm -f "$dir/kubeconfig"
if [ -n "$keep" ]; then
  find "$state" -mindepth 1 -maxdepth 1 ! -name log -exec rm -rf {} +
else
  rm -rf "$state"
fi
