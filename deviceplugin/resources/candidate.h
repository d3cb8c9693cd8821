// Everything on a node that could be offered as a device, regardless of the configuration: network
// functions, vDPA devices without a function, and management devices that could make one.
#pragma once

#include <string>
#include <vector>

#include "deviceplugin/discovery/snapshot.h"

namespace vdpa::plugin {

// Its pointers are into the snapshot it was found in.
struct Candidate {
  std::string id;
  const PciFunction* function = nullptr;
  const PciFunction* pf = nullptr;  // of a VF
  const AuxiliaryDevice* slice =
      nullptr;                       // of a function, where that is what makes the vDPA device
  const VdpaDevice* vdpa = nullptr;  // if it exists
  const ManagementDevice* management = nullptr;  // the parent of the existing or future vDPA device
  std::string pfName;  // of a VF or a slice: its PF's netdev; may be empty
  int numaNode = -1;
  std::string never;  // why no resource may have it; empty: resources may

  // Of its vDPA device, else its management device's maximum; 0: not known.
  unsigned queuePairs() const;
  // The same, but the maximum if provisioning made the vDPA device.
  unsigned provisionedPairs() const;
  // Whether its vDPA device is the one that provisioning makes.
  bool hasProvisionedDevice() const;
};

// In natural order of their IDs.
std::vector<Candidate> findCandidates(const Snapshot& snapshot);

// The name that provisioning gives the device of a management device: stable over reboots.
std::string provisionedName(const std::string& managementDevice);

}  // namespace vdpa::plugin
