// Requests of the CNI plugin.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/mac_address.h"
#include "common/port_settings.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/model/pod_addresses.h"

namespace vdpa::datapath {

struct AttachRequest {
  Owner owner;
  std::string deviceId;
  PortSettings settings;  // requested
  std::vector<std::string> ips;
  std::vector<PodRoute> routes;
  bool addressesFollow = false;  // setAddresses() waits for the worker that attach() started
};

// For Check. Other plugins of a chain may have changed a netdev since: its expected values.
struct CheckRequest : AttachRequest {
  std::optional<MacAddress> interfaceMac;  // absent: what Attach gave it
  unsigned interfaceMtu = 0;               // 0: what Attach gave it
};

}  // namespace vdpa::datapath
