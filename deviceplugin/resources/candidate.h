// What on a node could be a device at all, whatever the configuration says: network functions,
// vDPA devices without one, and management devices that could make one.
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
  const VdpaDevice* vdpa = nullptr;  // that exists
  const ManagementDevice* management = nullptr;  // where one is or could be made
  std::string pfName;  // of a VF or a slice: its PF's netdev; may be empty
  int numaNode = -1;
  std::string never;  // why no resource may have it; empty: one may

  // Of its vDPA device, else the most that its management device makes; 0: not known.
  unsigned queuePairs() const;
  // The same, where one that provisioning made counts as to be made.
  unsigned provisionedPairs() const;
  // Its vDPA device is the one that provisioning makes.
  bool hasProvisionedDevice() const;
};

// In natural order of their IDs.
std::vector<Candidate> findCandidates(const Snapshot& snapshot);

// What provisioning names the device of a management device: stable over reboots.
std::string provisionedName(const std::string& managementDevice);

}  // namespace vdpa::plugin
