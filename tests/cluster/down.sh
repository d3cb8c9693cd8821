#!/bin/bash
# Stops what up.sh started, pods included, and removes its links, namespaces, cgroups and files. It works on what is left of
# a half-started cluster as well, and on none at all. Usage: down.sh DIR [keep-logs]
set -euo pipefail
. "$(dirname "$0")/settings.sh"
keep=${2:-}

# stop PIDFILE NAME: kills the process if it still is the one that was started (numbers are used again). Nothing here is
# worth an orderly end: all its data is removed.
stop() {
  local pid
  pid=$(cat "$1" 2> /dev/null) || return 0
  grep -aq "$2" "/proc/$pid/cmdline" 2> /dev/null || return 0
  kill -KILL "$pid" 2> /dev/null || return 0
  wait_for 10 "the end of $2 (pid $pid)" not_running "$pid"
}
not_running() { [ ! -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"; }

for node in $nodes; do
  stop "$state/$node/pid" node.sh    # with --kill-child, and with its pid 1 every process of the node's
done
for program in $control_plane; do stop "$state/$program.pid" "$program"; done

# Processes of a node end by themselves now, and those of the datapath, which it moved to a cgroup of its own. A cgroup stays
# busy until the last has gone, a while after it is no longer listed.
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
  ip link del "$link" 2> /dev/null || true   # a node's may have gone with its namespace just now
  [ ! -e "/sys/class/net/$link" ] || { echo "cannot remove the link $link" >&2; exit 1; }
done

rm -f "$dir/kubeconfig"
if [ -n "$keep" ]; then
  find "$state" -mindepth 1 -maxdepth 1 ! -name log -exec rm -rf {} +
else
  rm -rf "$state"
fi
