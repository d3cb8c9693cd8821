// How a device could be served: which backend fits what it is and what it is bound to.
#pragma once

#include <optional>
#include <string>

#include "deviceplugin/config/config.h"
#include "deviceplugin/resources/candidate.h"
#include "deviceplugin/resources/device.h"

namespace vdpa::plugin {

struct BackendFit {
  std::optional<Device> device;
  // With a device: by what. Without: what is missing, and what would help.
  std::string why;
};

// The kernel driver that provisioning binds to make a vDPA device of this function; empty: none.
std::string vdpaDriverOf(const Candidate& candidate);

// The first backend that fits, as `resource` asks for it.
BackendFit fitBackend(const ResourceConfig& resource, const Candidate& candidate);

}  // namespace vdpa::plugin
