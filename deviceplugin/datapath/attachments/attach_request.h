// What the CNI plugin asks for.
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
  bool addressesFollow = false;  // setAddresses() waits for what attach() started
};

// For Check; of a netdev that others of a chain may have changed since, what it should have now.
struct CheckRequest : AttachRequest {
  std::string interfaceMac;   // empty: what Attach gave it
  unsigned interfaceMtu = 0;  // likewise
};

}  // namespace vdpa::datapath
