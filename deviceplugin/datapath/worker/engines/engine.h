// An engine moves the packets of the device that the pod's session describes: behind a private
// vhost-user socket, or in the kernel. It may die or vanish at any time; the pod's connection
// stays.
//
// Declarative: follow() names the device, update() brings the engine in line with it, whatever
// changed. Everything runs on the event loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "common/mac_address.h"
#include "deviceplugin/datapath/vhost_user/vhost_device.h"

namespace vdpa::worker {

// The limits that an engine reports.
struct EngineLimits {
  uint64_t features = 0;
  uint64_t protocolFeatures = 0;
  uint32_t queuePairs = 1;
  uint32_t queueSize = vhost_user::kMaxQueueSize;  // entries of the largest ring
  // Of the device itself; none: whatever is reported to the pod.
  std::optional<MacAddress> mac;
  std::optional<uint16_t> mtu;
  bool linkUp = true;  // while it was learned; Events::link reports changes
};

// Checksums and segmentation, in frames that a driver sends or receives.
inline constexpr uint64_t kOffloads =
    vhost_user::feature::kChecksum | vhost_user::feature::kGuestChecksum |
    vhost_user::feature::kGuestTso4 | vhost_user::feature::kGuestTso6 |
    vhost_user::feature::kGuestEcn | vhost_user::feature::kGuestUfo |
    vhost_user::feature::kGuestUso4 | vhost_user::feature::kGuestUso6 |
    vhost_user::feature::kHostTso4 | vhost_user::feature::kHostTso6 |
    vhost_user::feature::kHostEcn | vhost_user::feature::kHostUfo | vhost_user::feature::kHostUso;

// Features that the worker itself implements: offered whatever the engine has, and never passed to
// one.
//
// - kMac, kLinkStatus: fields of the configuration space.
// - kInOrder: with it rte_vhost would mark one used descriptor for a burst of them, and with the
//   engine the position in a packed ring would be lost. Without it, rte_vhost still gives buffers
//   back in the order in which it took them, in both formats, also where it drops their packets
//   (DPDK 22.11, lib/vhost/virtio_net.c). So does our switch (virtqueue/README.md).
inline constexpr uint64_t kWorkersFeatures =
    vhost_user::feature::kMac | vhost_user::feature::kLinkStatus | vhost_user::feature::kInOrder;

class Engine {
 public:
  struct Events {
    // The engine came up (again) or was lost; `reason` is empty if it is up.
    std::function<void(bool up, const std::string& reason)> state;
    // The engine has completed all requests. Not called if update() left nothing to wait for.
    std::function<void()> settled;
    // The device cannot be served: by the pod's fault, or until its driver resets it.
    std::function<void(const std::string& reason)> failed;
    // The link's status, when it has changed, and of each engine that came up.
    std::function<void(bool up)> link = [](bool) {};
  };

  virtual ~Engine() = default;

  // Known once the engine was up for the first time.
  virtual const std::optional<EngineLimits>& limits() const = 0;
  virtual bool up() const = 0;
  // Whether it moves packets of the followed device.
  virtual bool running() const = 0;
  // Why it does not although it is up; empty: no reason, or none that lasts.
  virtual std::string whyWaiting() const { return {}; }

  // Follows this device, which must outlive it or be released.
  virtual void follow(vhost_user::VhostDevice* device) = 0;
  // Releases the device; the engine keeps nothing of the pod's.
  virtual void release() = 0;
  // Brings the engine in line with the device. Throws ProtocolError when the device cannot be
  // served; later failures go to `failed`.
  virtual void update() = 0;
  // Whether the engine is in line, or gone: then positions are found in the rings themselves.
  virtual bool settled() const = 0;
};

}  // namespace vdpa::worker
