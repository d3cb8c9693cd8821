// Which devices belong to which resource, and why: a plain function from the configuration and what
// is on the node.
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

// What became of one thing on the node that could be a device.
struct Verdict {
  std::string id;
  std::string what;                             // "VF 2 of ens1f0, 15b3:101e, driver mlx5_core"
  std::string resource;                         // that has it; empty: none
  std::string reason;                           // why it has it, or why none may
  std::map<std::string, std::string> refusals;  // resource to the first thing that kept it out
  bool operator==(const Verdict&) const = default;
};

struct Offers {
  std::vector<ResourceOffer> resources;        // as configured
  std::vector<Verdict> verdicts;               // in natural order of their IDs
  std::map<std::string, std::string> skipped;  // as in Snapshot
};

// The first resource that matches a device owns it.
Offers makeOffers(const Config& config, const Snapshot& snapshot);

// What --validate prints: a few lines for each resource, then a line for everything else on the
// node.
std::string describe(const Offers& offers);

}  // namespace vdpa::plugin
