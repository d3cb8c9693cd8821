// See the header.
#include "deviceplugin/resources/held.h"

#include <algorithm>

namespace vdpa {
namespace {

std::string whyGone(const Offers& found, const std::string& resource, const std::string& id) {
  const auto verdict = std::find_if(found.verdicts.begin(), found.verdicts.end(),
                                    [&](const Verdict& each) { return each.id == id; });
  if (verdict == found.verdicts.end()) return "it is gone from the node";
  const auto refusal = verdict->refusals.find(resource);
  return refusal == verdict->refusals.end() ? verdict->reason : refusal->second;
}

}  // namespace

std::vector<Offer> withHeld(const Offers& found, const std::vector<Offer>& before,
                            const std::set<std::pair<std::string, std::string>>& held) {
  std::vector<Offer> offers = found.resources;
  if (held.empty()) return offers;
  std::set<std::string> offered;
  for (const auto& offer : offers)
    for (const auto& device : offer.devices) offered.insert(device.id);
  for (const auto& earlier : before) {
    const std::string name = earlier.resource.fullName();
    const auto offer = std::find_if(offers.begin(), offers.end(), [&](const Offer& each) {
      return each.resource.fullName() == name;
    });
    if (offer == offers.end()) continue;
    for (Device device : earlier.devices) {
      if (offered.contains(device.id) || !held.contains({name, device.id})) continue;
      device.unhealthy = whyGone(found, name, device.id);
      offer->devices.push_back(std::move(device));
    }
  }
  return offers;
}

}  // namespace vdpa
