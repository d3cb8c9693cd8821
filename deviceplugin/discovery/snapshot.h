// The node's devices, as seen by one pass over sysfs, one dump of the kernel's vdpa netlink family
// and one of its network configuration. Plain values; deviceplugin/resources makes the decisions.
//
// Sources: Documentation/ABI/testing/sysfs-bus-pci, sysfs-bus-vdpa, sysfs-class-net;
// include/uapi/linux/vdpa.h.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/mac_address.h"

namespace vdpa::plugin {

// A network function on the PCI bus (class 02xxxx), or one whose driver makes vDPA devices.
struct PciFunction {
  std::string address;          // "0000:65:00.2"
  std::string vendor;           // four hex digits, lower case: "15b3"
  std::string device;           //
  std::string subsystemVendor;  //
  std::string subsystemDevice;  //
  uint32_t classCode = 0;       // 24 bits, 0x020000 for Ethernet
  std::string driver;           // empty: none is bound
  int numaNode = -1;            // -1: unknown
  std::optional<unsigned> iommuGroup;
  std::vector<std::string> netdevs;  // sorted; representors are not among them
  // Of a VF: its PF's address and its index there. Inside a VM, a VF has no PF.
  std::string pf;
  unsigned vfIndex = 0;
  unsigned vfCount = 0;  // of a PF: its current number of VFs
  bool operator==(const PciFunction&) const = default;
};

// A slice of a function on the auxiliary bus, such as a scalable function ("mlx5_core.sf.4").
struct AuxiliaryDevice {
  std::string name;
  std::string pciAddress;  // of the function it belongs to
  std::string driver;
  std::optional<unsigned> sfNumber;
  std::vector<std::string> netdevs;
  int numaNode = -1;
  bool operator==(const AuxiliaryDevice&) const = default;
};

// A device on the vdpa bus.
struct VdpaDevice {
  std::string name;                  // "vdpa0"
  std::string managementDevice;      // as iproute2 writes it: "pci/0000:65:00.2", "vdpasim_net"
  std::string pciAddress;            // of its parent function; empty for the simulator
  std::string busDriver;             // vhost_vdpa, virtio_vdpa; empty: none is bound
  std::string characterDevice;       // "vhost-vdpa-3", under vhost_vdpa
  std::vector<std::string> netdevs;  // under virtio_vdpa
  unsigned queuePairs = 1;
  unsigned queueSize = 0;         // entries; 0: not reported
  std::optional<MacAddress> mac;  // absent: not reported
  unsigned mtu = 0;               // 0: not reported
  uint64_t features = 0;          // VIRTIO_F_* and VIRTIO_NET_F_*; 0: not reported
  bool isNetwork = true;          // virtio device ID 1
  bool operator==(const VdpaDevice&) const = default;
};

// A parent on which vDPA devices can be made.
struct ManagementDevice {
  std::string name;        // "pci/0000:65:00.2", "vdpasim_net"
  std::string pciAddress;  // of its function; empty: none
  bool makesNetwork = false;
  unsigned maxVirtqueues = 0;
  uint64_t features = 0;
  bool operator==(const ManagementDevice&) const = default;
};

// A physical function's port, for health and names.
struct Netdev {
  std::string name;
  std::string pciAddress;  // empty: virtual
  bool linkUp = false;     // carrier and administrative state
  // Why the host needs it, such as "the default route", "the address 192.0.2.1/24" or "in the
  // bridge br0, which has the address ..."; empty: it doesn't.
  std::string hostUse;
  bool operator==(const Netdev&) const = default;
};

struct Snapshot {
  std::map<std::string, PciFunction> functions;               // by address
  std::map<std::string, AuxiliaryDevice> auxiliary;           // by name
  std::map<std::string, VdpaDevice> vdpaDevices;              // by name
  std::map<std::string, ManagementDevice> managementDevices;  // by name
  // A function's address to its management device on the auxiliary bus, if its driver has one there
  // ("pds_core.vDPA.3").
  std::map<std::string, std::string> parts;
  std::map<std::string, Netdev> netdevs;         // by name
  std::map<std::string, std::string> pfNetdevs;  // PF address to the netdev that names it (its
                                                 // uplink representor in switchdev mode)
  std::map<std::string, std::string> skipped;    // sysfs path to the reason for skipping it
  bool operator==(const Snapshot&) const = default;
};

}  // namespace vdpa::plugin
