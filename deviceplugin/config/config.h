// The operator's configuration, /etc/vdpa/config.yaml, as validated values.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/backend.h"
#include "common/port_policy.h"
#include "common/uplink_config.h"
#include "common/virtio_features.h"
#include "deviceplugin/config/selector.h"

namespace vdpa::plugin {

// Options of the pods' sockets.
struct SocketConfig {
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t mode = 0666;
  std::string selinuxLabel;
  bool operator==(const SocketConfig&) const = default;
};

// Ports of a software switch.
struct SoftwareConfig {
  unsigned ports = 0;       // 1 to 4096
  unsigned queuePairs = 1;  // 1 to 16
  unsigned mtu = 1500;      // bytes, 68 to 9000
  UplinkConfig uplink;
  std::string cores;  // CPU list; empty: the switch's choice
  PortPolicy policy = {};
  bool operator==(const SoftwareConfig&) const = default;
};

// Attributes of the vDPA devices that provisioning makes; 0 is the default.
struct VdpaConfig {
  unsigned queuePairs = 0;  // 0: all of the management device
  unsigned mtu = 0;         // bytes; 0: the parent's
  uint64_t features = 0;    // VIRTIO_F_* and VIRTIO_NET_F_*; 0: all

  // 0: all. A list of features without MQ means one.
  unsigned pairs() const {
    const bool one = features != 0 && (features & kFeatureMultiqueue) == 0;
    return queuePairs == 0 && one ? 1 : queuePairs;
  }
  bool operator==(const VdpaConfig&) const = default;
};

enum class BackendChoice { automatic, kernel, dpdk, software };
enum class AllocationOrder { spread, pack };  // over PFs

struct ResourceConfig {
  std::string prefix = "vdpa.io";
  std::string name;
  BackendChoice backend = BackendChoice::automatic;
  Attach attach = Attach::vhostUser;
  std::vector<Selector> devices;  // alternatives; empty: software ports only
  bool provision = false;         // bind drivers and add vDPA devices where missing
  VdpaConfig vdpa;                // with provision
  bool topology = true;           // NUMA hints to the kubelet
  bool linkHealth = true;         // a device whose PF has no link is unhealthy
  AllocationOrder allocation = AllocationOrder::spread;
  std::string devargs;  // additional arguments of the DPDK driver
  SocketConfig socket;
  std::optional<SoftwareConfig> software;

  std::string fullName() const { return prefix + "/" + name; }
  bool operator==(const ResourceConfig&) const = default;
};

struct Config {
  std::vector<ResourceConfig> resources;  // of one node
};

// "FILE:LINE:COLUMN: problem; expected ...".
class ConfigError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The resources that are for the node `nodeName`; all of the file is checked. `nodeName` may be
// empty as long as no resource has "nodes". `file` is only named in errors. Throws ConfigError.
Config parseConfig(const std::string& text, const std::string& file,
                   const std::string& nodeName = {});

// Also throws ConfigError if the file can't be read.
Config loadConfig(const std::string& file, const std::string& nodeName);

}  // namespace vdpa::plugin
