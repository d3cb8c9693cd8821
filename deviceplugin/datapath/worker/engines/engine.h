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
#include "deviceplugin/datapath/worker/protocol/vhost_device.h"

namespace vdpa::worker {

// The limits that an engine reports.
struct EngineLimits {
  uint64_t features = 0;
  uint64_t protocolFeatures = 0;
  uint32_t queuePairs = 1;
  uint32_t queueSize = kMaxQueueSize;  // entries of the largest ring
  // Of the device itself; none: whatever is reported to the pod.
  std::optional<MacAddress> mac;
  std::optional<uint16_t> mtu;
};

class Engine {
 public:
  struct Events {
    // The engine came up (again) or was lost; `reason` is empty if it is up.
    std::function<void(bool up, const std::string& reason)> state;
    // The engine has completed all requests. Not called if update() left nothing to wait for.
    std::function<void()> settled;
    // The device cannot be served: by the pod's fault, or until its driver resets it.
    std::function<void(const std::string& reason)> failed;
  };

  virtual ~Engine() = default;

  // Known once the engine was up for the first time.
  virtual const std::optional<EngineLimits>& limits() const = 0;
  virtual bool up() const = 0;
  // Whether it moves packets of the followed device.
  virtual bool running() const = 0;

  // Follows this device, which must outlive it or be released.
  virtual void follow(VhostDevice* device) = 0;
  // Releases the device; the engine keeps nothing of the pod's.
  virtual void release() = 0;
  // Brings the engine in line with the device. Throws ProtocolError when the device cannot be
  // served; later failures go to `failed`.
  virtual void update() = 0;
  // Whether the engine is in line, or gone: then positions are found in the rings themselves.
  virtual bool settled() const = 0;
};

}  // namespace vdpa::worker
