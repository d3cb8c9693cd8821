// A device as discovery finds it, whatever is behind it.
#pragma once

#include <string>

namespace vdpa {

enum class Backend { software };

struct Device {
  std::string id;  // unique on the node
  Backend backend = Backend::software;
  bool operator==(const Device&) const = default;
};

}  // namespace vdpa
