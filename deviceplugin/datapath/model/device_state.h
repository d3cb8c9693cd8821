// Whether a device may be given to pods, as reported to the device plugin.
#pragma once

#include <string>

namespace vdpa::datapath {

struct DeviceState {
  std::string id;
  std::string resource;
  bool healthy = false;
  std::string reason;  // why not healthy
  bool removed = false;
  bool drained = false;  // with the whole node

  bool operator==(const DeviceState&) const = default;
};

}  // namespace vdpa::datapath
