// The kernel's vdpa family on generic netlink: lists vDPA devices and their possible parents, makes
// and removes devices.
//
// The kernel holds one lock for all of this, and `dev del` keeps it until no process has the device
// open: any call may hang that long, unkillable. So each call runs on its own thread with a
// deadline, and only one at a time: the next call waits its turn, within its own deadline.
//
// Source: include/uapi/linux/vdpa.h and drivers/vdpa/vdpa.c in Linux 6.12.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/mac_address.h"
#include "common/vdpa_attributes.h"

namespace vdpa {

struct VdpaDeviceInfo {
  std::string name;
  std::string managementDevice;  // as iproute2 writes it: "pci/0000:65:00.2", "vdpasim_net"
  uint32_t deviceId = 0;         // of virtio: 1 is a network device
  uint32_t maxVirtqueues = 0;
  uint16_t maxQueueSize = 0;
  uint16_t maxQueuePairs = 0;     // 0: not reported, which means one
  std::optional<MacAddress> mac;  // absent: not reported
  uint16_t mtu = 0;               // 0: not reported
  // 0: not reported, as by Linux 6.1, which uses another number than VDPA_ATTR_DEV_FEATURES:
  // in 6.12 that is a block device's capacity.
  uint64_t features = 0;
  bool operator==(const VdpaDeviceInfo&) const = default;
};

struct VdpaManagementInfo {
  std::string name;
  uint64_t classes = 0;  // bit n: makes devices of virtio ID n
  uint32_t maxVirtqueues = 0;
  uint64_t features = 0;
  bool operator==(const VdpaManagementInfo&) const = default;
};

// Parse the attributes of one message of a dump, after netlink's and generic netlink's headers;
// malformed attributes count as absent. Separate from the socket for tests.
VdpaDeviceInfo parseVdpaDevice(std::span<const std::byte> attributes);
VdpaManagementInfo parseVdpaManagement(std::span<const std::byte> attributes);

// A driver's counters of one virtqueue.
using VdpaQueueEvents = std::map<std::string, uint64_t>;
// From an answer's attributes.
VdpaQueueEvents parseVdpaQueueEvents(std::span<const std::byte> attributes);

class VdpaNetlink {
 public:
  struct Dump {
    std::vector<VdpaDeviceInfo> devices;
    std::vector<VdpaManagementInfo> management;
    std::string problem;  // why this is the previous dump instead of a new one; empty: it is new
  };

  explicit VdpaNetlink(std::chrono::milliseconds timeout = std::chrono::seconds(2));
  ~VdpaNetlink();

  // Empty on a kernel without vDPA.
  Dump dump();
  // One device's configuration; nothing if there is no such device, or if it reports none before a
  // driver has set it up. Throws std::system_error.
  std::optional<VdpaDeviceInfo> config(const std::string& name);
  // The next user of the device finds this MAC; a process that has it open keeps the old one. False
  // if the kernel or the device's parent can't set it (Linux 6.12 is the first that can). Throws
  // std::system_error.
  bool setMac(const std::string& name, const MacAddress& mac);
  // These two throw std::exception with the device, problem and remedy. add() returns the
  // attributes that the kernel accepted: an older one accepts fewer (waysToMake()).
  VdpaAttributes add(const std::string& name, const std::string& managementDevice,
                     const VdpaAttributes& attributes);
  void remove(const std::string& name);
  // What the device's driver counts for each of the first `queues` virtqueues, by the driver's
  // names. Empty if it counts nothing, or not now: before a driver has set the device up. Throws
  // std::system_error. Needs CAP_NET_ADMIN.
  std::vector<VdpaQueueEvents> queueEvents(const std::string& name, unsigned queues);

 private:
  void withDeadline(const std::string& what, std::function<void()> call);

  struct Calls;
  const std::chrono::milliseconds timeout_;
  const std::shared_ptr<Calls> calls_;  // shared with a thread that hangs
  Dump last_;
};

}  // namespace vdpa
