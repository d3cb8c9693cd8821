#include "common/uplink_config.h"

#include <string>

namespace vdpa {

std::string describe(const UplinkConfig& uplink) {
  if (uplink.empty()) return "none";
  return uplink.netdev.empty() ? uplink.pci : uplink.netdev + (uplink.xdp ? " (AF_XDP)" : "");
}

}  // namespace vdpa
