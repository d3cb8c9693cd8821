// Chooses the devices that a container should get.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "deviceplugin/config/config.h"

namespace vdpa::plugin {

// "nic-2" before "nic-10": runs of digits compare as numbers.
bool naturalLess(std::string_view a, std::string_view b);

struct Choice {
  std::string id;
  int numaNode = -1;
  std::string pf;
};

// `mustInclude` first. The rest from one NUMA node if one has enough (preferably that of the
// included ones), spread or packed over its PFs, and otherwise in natural order. Throws
// std::invalid_argument with the reason if that is impossible.
std::vector<std::string> preferDevices(std::vector<Choice> available,
                                       const std::vector<std::string>& mustInclude, int count,
                                       AllocationOrder order);

}  // namespace vdpa::plugin
