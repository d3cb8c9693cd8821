// What a device's driver has counted for one of its virtqueues, under names of its own.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace vdpa::datapath {

struct QueueEvents {
  unsigned queue = 0;
  std::map<std::string, uint64_t> events;
};

}  // namespace vdpa::datapath
