// An attachment: the use of a device by one container's interface.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/port_settings.h"
#include "deviceplugin/datapath/model/owner.h"

namespace vdpa::datapath {

struct Attachment {
  std::string deviceId;
  std::string resource;
  Owner owner;
  PortSettings port = defaultSettings();  // in force
  std::string socket;  // what the application opens, as the pod sees it; empty: a netdev
  unsigned queuePairs = 1;
  unsigned queueSize = 256;
  std::vector<std::string> ips;  // with prefix length
  int64_t created = 0;           // seconds since 1970
};

}  // namespace vdpa::datapath
