// How a device could be served: the backend that fits its kind and its driver.
#pragma once

#include <optional>
#include <string>

#include "deviceplugin/config/config.h"
#include "deviceplugin/resources/candidate.h"
#include "deviceplugin/resources/device.h"

namespace vdpa::plugin {

struct BackendFit {
  std::optional<Device> device;
  // With a device: the driver that serves it. Without: the obstacle and a remedy.
  std::string why;
};

// The kernel driver that provisioning binds to make a vDPA device of this function; empty: none.
std::string vdpaDriverOf(const Candidate& candidate);

// The first backend that fits `resource`.
BackendFit fitBackend(const ResourceConfig& resource, const Candidate& candidate);

}  // namespace vdpa::plugin
