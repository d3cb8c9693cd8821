// Whether a selector of the configuration matches a device.
#pragma once

#include <string>

#include "deviceplugin/config/selector.h"
#include "deviceplugin/resources/candidate.h"

namespace vdpa::plugin {

// The first key that doesn't match, with the found and the needed value; empty: all match.
// `provisionedDriver` is the driver that provisioning would bind: it satisfies any driver that a
// selector requires, since a device must not lose its resource by being provisioned. `queuePairs`
// is the device's number or, with provisioning, its maximum; 0: not known.
std::string mismatch(const Selector& selector, const Candidate& candidate,
                     const std::string& provisionedDriver, unsigned queuePairs);

}  // namespace vdpa::plugin
