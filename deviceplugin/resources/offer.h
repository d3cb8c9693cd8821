// Which devices belong to which resource, and why: a pure function of the configuration and the
// node's devices.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "deviceplugin/config/config.h"
#include "deviceplugin/discovery/snapshot.h"
#include "deviceplugin/resources/device.h"

namespace vdpa::plugin {

struct ResourceOffer {
  ResourceConfig resource;
  std::vector<Device> devices;  // in natural order
  bool operator==(const ResourceOffer&) const = default;
};

// The decision on one candidate.
struct Verdict {
  std::string id;
  std::string what;                             // "VF 2 of ens1f0, 15b3:101e, driver mlx5_core"
  std::string resource;                         // its owner; empty: none
  std::string reason;                           // why that owns it, or why none may
  std::map<std::string, std::string> refusals;  // resource to its first obstacle
  bool operator==(const Verdict&) const = default;
};

struct Offers {
  std::vector<ResourceOffer> resources;        // as configured
  std::vector<Verdict> verdicts;               // in natural order of their IDs
  std::map<std::string, std::string> skipped;  // as in Snapshot
};

// The first resource that matches a device owns it.
Offers makeOffers(const Config& config, const Snapshot& snapshot);

// The output of --validate: a few lines for each resource, then a line for each other candidate.
std::string describe(const Offers& offers);

}  // namespace vdpa::plugin
