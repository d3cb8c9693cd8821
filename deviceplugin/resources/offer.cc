// See the header.
#include "deviceplugin/resources/offer.h"

#include <fmt/format.h>

#include "deviceplugin/discovery/software_ports.h"

namespace vdpa {

std::vector<Offer> makeOffers(const Config& config) {
  std::vector<Offer> offers;
  for (const auto& resource : config.resources)
    offers.push_back({resource, findSoftwarePorts(resource)});
  return offers;
}

std::string describe(const std::vector<Offer>& offers) {
  std::string text;
  for (const auto& [resource, devices] : offers) {
    const auto& software = resource.software;
    text += fmt::format(
        "{}: {} devices, {} to {}\n  software switch: {} queue pairs, mtu {}, uplink {}, cores "
        "{}\n",
        resource.fullName(), devices.size(), devices.front().id, devices.back().id,
        software.queuePairs, software.mtu,
        software.uplinkNetdev.empty() ? "none" : software.uplinkNetdev,
        software.cores.empty() ? "not pinned" : software.cores);
  }
  return text;
}

}  // namespace vdpa
