// The devices that need no hardware: as many as the configuration asks for.
#pragma once

#include <vector>

#include "deviceplugin/config/config.h"
#include "deviceplugin/discovery/device.h"

namespace vdpa {

std::vector<Device> findSoftwarePorts(const ResourceConfig& resource);

}  // namespace vdpa
