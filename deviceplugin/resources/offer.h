// Which devices belong to which resource: a plain function from the configuration (and what is on
// the node) to lists of devices.
#pragma once

#include <string>
#include <vector>

#include "deviceplugin/config/config.h"
#include "deviceplugin/discovery/device.h"

namespace vdpa {

struct Offer {
  ResourceConfig resource;
  std::vector<Device> devices;  // in natural order
  bool operator==(const Offer&) const = default;
};

std::vector<Offer> makeOffers(const Config& config);

// What --validate prints: a few lines for each resource.
std::string describe(const std::vector<Offer>& offers);

}  // namespace vdpa
