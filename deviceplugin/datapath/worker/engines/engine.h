// What moves the packets of the device that the pod's session describes: behind a private
// vhost-user socket, or the kernel's own. It may die or vanish at any time; the pod's connection is
// not concerned.
//
// Declarative: follow() names the device, update() makes the engine look like it, whatever changed.
// Everything runs on the event loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "deviceplugin/datapath/worker/protocol/net_config.h"
#include "deviceplugin/datapath/worker/protocol/vhost_device.h"

namespace vdpa::worker {

// What an engine says it can do.
struct EngineLimits {
  uint64_t features = 0;
  uint64_t protocolFeatures = 0;
  uint32_t queuePairs = 1;
  uint32_t queueSize = kMaxQueueSize;  // entries of the largest ring
  // Of the device itself; none: it is whatever the pod is told.
  std::optional<std::array<uint8_t, 6>> mac;
  std::optional<uint16_t> mtu;
};

class Engine {
 public:
  struct Events {
    // The engine came (again) or was lost; `reason` is empty when it is up.
    std::function<void(bool up, const std::string& reason)> state;
    // Everything asked of the engine has happened. Not called when update() left nothing to wait
    // for.
    std::function<void()> settled;
    // The device cannot be served: the pod's fault, or one that only the driver's reset can mend.
    std::function<void(const std::string& reason)> failed;
  };

  virtual ~Engine() = default;

  // Known once the engine was up for the first time.
  virtual const std::optional<EngineLimits>& limits() const = 0;
  virtual bool up() const = 0;
  // Whether it moves packets of the device followed.
  virtual bool running() const = 0;

  // Follows this device, which must outlive it or be released.
  virtual void follow(VhostDevice* device) = 0;
  // Lets go of the device; the engine keeps nothing of the pod's.
  virtual void release() = 0;
  // Brings the engine in line with the device. Throws ProtocolError when the device cannot be
  // served; what comes up later goes to `failed`.
  virtual void update() = 0;
  // Whether the engine is in line, or gone: then positions are found in the rings themselves.
  virtual bool settled() const = 0;
};

}  // namespace vdpa::worker
