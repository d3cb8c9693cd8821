// Whether a selector of the configuration means a device.
#pragma once

#include <string>

#include "deviceplugin/config/selector.h"
#include "deviceplugin/resources/candidate.h"

namespace vdpa::plugin {

// The first key that doesn't match, with what was found and what is needed; empty: it matches.
// `provisionedDriver` is a driver that provisioning would bind: it counts as the one that a
// selector asks for, since a device must not lose its resource by being provisioned. `queuePairs`
// is what it has or, with provisioning, can be given; 0: not known.
std::string mismatch(const Selector& selector, const Candidate& candidate,
                     const std::string& provisionedDriver, unsigned queuePairs);

}  // namespace vdpa::plugin
