// A device as a resource offers it to the kubelet, the datapath and a pod.
#pragma once

#include <string>

#include "common/vdpa_attributes.h"
#include "deviceplugin/config/config.h"

namespace vdpa::plugin {

struct Device {
  std::string id;  // unique on the node
  BackendKind backend = BackendKind::software;
  Attach attach = Attach::vhostUser;
  int numaNode = -1;      // -1: none
  std::string pf;         // PCI address of the PF it shares a port with, or its own; may be empty
  std::string pfName;     // of a VF or a slice: its PF's netdev; may be empty
  std::string unhealthy;  // discovery's reason why it can't be used now; empty: it can

  std::string pciAddress;   // empty: no PCI function
  unsigned queuePairs = 0;  // 0: known when it is opened

  // kernel
  std::string vdpa;              // its name on the vdpa bus, or the one that provisioning gives
  std::string managementDevice;  // its parent
  std::string characterDevice;   // "vhost-vdpa-3"; empty under virtio_vdpa, or not there yet
  std::string pciDriver;         // for provisioning to bind; empty: nothing to bind
  bool provision = false;
  VdpaAttributes attributes;  // for making it
  VdpaRules rules;            // of its parent's driver

  // dpdk
  std::string dpdkDriver;  // ifc, mlx5, sfc

  bool operator==(const Device&) const = default;
};

}  // namespace vdpa::plugin
