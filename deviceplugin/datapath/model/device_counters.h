// The packets of a device since it was attached or its switch started, as its pod sees them.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace vdpa::datapath {

struct DeviceCounters {
  std::string id;
  uint64_t rxPackets = 0;  // what the pod received
  uint64_t rxBytes = 0;
  uint64_t txPackets = 0;
  uint64_t txBytes = 0;
  std::map<std::string, uint64_t> drops;  // by reason
};

}  // namespace vdpa::datapath
