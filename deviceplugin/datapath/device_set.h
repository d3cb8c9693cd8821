// What the node offers, as the device plugin told it.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace vdpa {

// How a pod's socket is created.
struct SocketOptions {
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t mode = 0666;
  std::string selinuxLabel;  // empty: inherited

  bool operator==(const SocketOptions&) const = default;
};

// What a resource's switch is started with.
struct SwitchConfig {
  unsigned queuePairs = 1;  // of each port
  unsigned mtu = 1500;      // bytes of layer-3 payload
  std::string uplink;       // a netdev; empty: none
  std::string cores;        // a CPU list; empty: the switch's choice

  bool operator==(const SwitchConfig&) const = default;
};

struct Resource {
  std::string name;  // "vdpa.io/nic"
  SocketOptions socket;
  SwitchConfig software;
  std::vector<std::string> devices;  // IDs
};

// Throws RefusedError (invalidArgument) for a set that cannot be: bad or repeated names and IDs,
// sizes out of range.
void checkDeviceSet(const std::vector<Resource>& resources);

}  // namespace vdpa
