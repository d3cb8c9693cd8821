#include "deviceplugin/resources/held_devices.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "deviceplugin/resources/device.h"
#include "deviceplugin/resources/offer.h"

namespace vdpa::plugin {
namespace {

std::string whyGone(const Offers& found, const std::string& resource, const std::string& id) {
  const auto verdict = std::find_if(found.verdicts.begin(), found.verdicts.end(),
                                    [&](const Verdict& each) { return each.id == id; });
  if (verdict == found.verdicts.end()) return "it is no longer on the node";
  const auto refusal = verdict->refusals.find(resource);
  return refusal == verdict->refusals.end() ? verdict->reason : refusal->second;
}

auto offerOf(auto& offers, const std::string& resource) {
  return std::find_if(offers.begin(), offers.end(), [&](const ResourceOffer& each) {
    return each.resource.fullName() == resource;
  });
}

Device earlierDevice(const std::vector<ResourceOffer>& before, const std::string& resource,
                     const std::string& id) {
  Device unknown;
  unknown.id = id;
  const auto offer = offerOf(before, resource);
  if (offer == before.end()) return unknown;
  const auto device = std::find_if(offer->devices.begin(), offer->devices.end(),
                                   [&](const Device& each) { return each.id == id; });
  return device == offer->devices.end() ? unknown : *device;
}

}  // namespace

std::vector<ResourceOffer> withHeldDevices(
    const Offers& found, const std::vector<ResourceOffer>& before,
    const std::set<std::pair<std::string, std::string>>& held) {
  std::vector<ResourceOffer> offers = found.resources;
  if (held.empty()) return offers;
  std::set<std::string> offered;
  for (const auto& offer : offers)
    for (const auto& device : offer.devices) offered.insert(device.id);
  for (const auto& [name, id] : held) {
    const auto offer = offerOf(offers, name);
    if (offer == offers.end() || offered.contains(id)) continue;
    Device device = earlierDevice(before, name, id);
    device.unhealthy = whyGone(found, name, id);
    offer->devices.push_back(std::move(device));
  }
  return offers;
}

}  // namespace vdpa::plugin
