#include "deviceplugin/resources/match.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "deviceplugin/config/selector.h"
#include "deviceplugin/resources/candidate.h"

namespace vdpa::plugin {
namespace {

template <typename T>
bool has(const std::vector<T>& wanted, const T& found) {
  return wanted.empty() || std::find(wanted.begin(), wanted.end(), found) != wanted.end();
}

template <typename T>
std::string needs(const char* what, const T& found, const std::vector<T>& wanted) {
  return fmt::format("{} is {}, needs {}", what, found, fmt::join(wanted, " or "));
}

// "none" for an empty text, for use in a sentence.
std::string orNone(const std::string& text) {
  return text.empty() ? "none" : text;
}

std::string shown(const std::vector<PfSelector>& selectors) {
  std::string text;
  for (const auto& selector : selectors) {
    text += (text.empty() ? "" : " or ") + selector.pf;
    for (size_t i = 0; i < selector.vfs.size(); ++i) {
      const auto& [first, last] = selector.vfs[i];
      text += fmt::format("{}{}", i == 0 ? "#" : ",", first);
      if (last != first) text += fmt::format("-{}", last);
    }
  }
  return text;
}

// Compares a VF by its PF's name or address.
std::string pfMismatch(const char* what, const std::vector<PfSelector>& wanted,
                       const Candidate& candidate, const std::string& found) {
  if (wanted.empty()) return "";
  if (!candidate.function || candidate.function->pf.empty())
    return fmt::format("is not a VF, needs {} {}", what, shown(wanted));
  const unsigned vf = candidate.function->vfIndex;
  for (const auto& selector : wanted)
    if (selector.pf == found && selector.contains(vf)) return "";
  return fmt::format("is VF {} of {} {}, needs {}", vf, what, orNone(found), shown(wanted));
}

}  // namespace

std::string mismatch(const Selector& selector, const Candidate& candidate,
                     const std::string& provisionedDriver, unsigned queuePairs) {
  const PciFunction none;
  const PciFunction& function = candidate.function ? *candidate.function : none;
  if (!has(selector.pciAddresses, function.address))
    return needs("PCI address", orNone(function.address), selector.pciAddresses);
  if (auto reason = pfMismatch("PF", selector.pfNames, candidate, candidate.pfName);
      !reason.empty())
    return reason;
  if (auto reason = pfMismatch("root device", selector.rootDevices, candidate, function.pf);
      !reason.empty())
    return reason;
  if (!has(selector.vendors, function.vendor))
    return needs("vendor", orNone(function.vendor), selector.vendors);
  if (!has(selector.devices, function.device))
    return needs("device", orNone(function.device), selector.devices);
  if (!has(selector.drivers, function.driver) &&
      (provisionedDriver.empty() || function.driver != provisionedDriver))
    return needs("driver", orNone(function.driver), selector.drivers);
  const std::string management = candidate.vdpa         ? candidate.vdpa->managementDevice
                                 : candidate.management ? candidate.management->name
                                                        : "";
  if (!has(selector.managementDevices, management))
    return needs("management device", orNone(management), selector.managementDevices);
  if (!has(selector.numaNodes, candidate.numaNode))
    return needs("NUMA node", candidate.numaNode, selector.numaNodes);
  if (queuePairs > 0 && queuePairs < selector.minQueuePairs)
    return fmt::format("has {} queue pairs, needs {}", queuePairs, selector.minQueuePairs);
  return "";
}

}  // namespace vdpa::plugin
