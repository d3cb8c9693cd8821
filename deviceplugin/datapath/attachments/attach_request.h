// Requests of the CNI plugin.
#pragma once

#include <string>
#include <vector>

#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/pod_addresses.h"

namespace vdpa::datapath {

struct AttachRequest {
  Owner owner;
  std::string deviceId;
  Settings settings;
  std::vector<std::string> ips;
  std::vector<PodRoute> routes;
  bool addressesFollow = false;  // setAddresses() waits for the worker that attach() started
};

// For Check. Other plugins of a chain may have changed a netdev since: its expected values.
struct CheckRequest : AttachRequest {
  std::string interfaceMac;   // empty: what Attach gave it
  unsigned interfaceMtu = 0;  // 0: what Attach gave it
};

}  // namespace vdpa::datapath
