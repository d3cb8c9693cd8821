#!/bin/bash
# Makes the project's image, as a directory, from a build. Usage: vdpa.sh BUILD DIR; without DIR it lists the programs.
set -euo pipefail

programs=(
  "$1/deviceplugin/vdpa-device-plugin"
  "$1/deviceplugin/exporter/vdpa-exporter"
  "$1/deviceplugin/ctl/vdpactl"
  "$1/deviceplugin/ping/vdpa-ping"
  "$1/deviceplugin/datapath/vdpa-datapath"
  "$1/deviceplugin/datapath/worker/vdpa-worker"
  "$1/deviceplugin/datapath/switch/vdpa-switch"
  "$1/deviceplugin/datapath/switch/vdpa-switch-dpdk"
  "$1/deviceplugin/datapath/pmd/vdpa-pmd"
  "$1/cni/vdpa"
)
[ $# -gt 1 ] || { printf '%s\n' "${programs[@]}"; exit; }

# DPDK's memory pools and virtual devices, and the uplink's packet socket: EAL loads these at start. Each vdpa-pmd loads
# its device's driver itself, and each vdpa-switch-dpdk its uplink's (@).
exec "$(dirname "$0")/rootfs.sh" "$2" "${programs[@]}" -- mempool_ring bus_vdev net_af_packet \
  @vdpa_ifc @vdpa_mlx5 @vdpa_sfc \
  @net_af_xdp @net_bnxt @net_e1000 @net_ena @net_i40e @net_iavf @net_ice @net_igc @net_ixgbe @net_virtio @net_vmxnet3
