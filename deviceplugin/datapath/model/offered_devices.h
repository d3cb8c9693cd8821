// The devices that the node offers, as the device plugin reports them.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "common/backend.h"
#include "common/paths.h"
#include "common/port_policy.h"
#include "common/uplink_config.h"
#include "common/vdpa_attributes.h"

namespace vdpa::datapath {

// How a pod's socket is created.
struct SocketOptions {
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t mode = 0666;
  std::string selinuxLabel;  // empty: inherited

  bool operator==(const SocketOptions&) const = default;
};

// The options of a resource's switch.
struct SwitchConfig {
  unsigned queuePairs = 1;  // of each port
  unsigned mtu = 1500;      // bytes of layer-3 payload
  UplinkConfig uplink;
  std::string cores;  // a CPU list; empty: the switch's choice

  bool operator==(const SwitchConfig&) const = default;
};

// The properties of a device, besides its ID.
struct DeviceConfig {
  BackendKind backend = BackendKind::software;
  Attach attach = Attach::vhostUser;
  int numaNode = -1;        // -1: none
  unsigned queuePairs = 0;  // 0: not known before it is opened
  std::string pciAddress;   // empty: no PCI function

  // kernel
  std::string vdpa;              // name on the vdpa bus
  std::string managementDevice;  // "pci/0000:65:00.2", "vdpasim_net"
  std::string pciDriver;         // the one that provisioning binds; empty: keep the bound one
  bool provision = false;
  VdpaAttributes attributes;  // for provisioning to make it with; without a MAC
  VdpaRules rules;            // of its parent's driver

  // dpdk
  std::string dpdkDriver;  // ifc, mlx5, sfc
  std::string devargs;

  bool operator==(const DeviceConfig&) const = default;
};

// One device with its resource's settings.
struct OfferedDevice {
  std::string resource;
  SocketOptions socket;
  SwitchConfig software;
  DeviceConfig device;
  PortPolicy policy = {};
};

struct Resource {
  std::string name;  // "vdpa.io/nic"
  SocketOptions socket;
  SwitchConfig software;                        // for its devices that are ports
  std::map<std::string, DeviceConfig> devices;  // by ID
  PortPolicy policy = {};                       // of those that are ports

  bool hasPorts() const;
};

// Throws RefusedError (invalidArgument) for an invalid set: bad or repeated names and IDs, sizes
// out of range.
void checkDeviceSet(const std::vector<Resource>& resources);

// The same if the path of a socket below `paths` would be too long.
void checkSocketPaths(const std::vector<Resource>& resources, const Paths& paths);

}  // namespace vdpa::datapath
