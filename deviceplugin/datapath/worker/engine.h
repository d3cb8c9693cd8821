// The vhost-user engine: this worker is the front-end of a private socket, behind which rte_vhost
// (the switch's) moves the packets. The engine's process may die or hang at any time. The pod's
// connection is not concerned: the next engine is started with what the pod has set up, and rings
// go on where they were.
//
// Declarative: follow() names the device, update() makes the engine look like it, whatever changed.
// Everything runs on the event loop's thread.
#pragma once

#include <functional>
#include <optional>

#include "deviceplugin/datapath/worker/engine_link.h"
#include "deviceplugin/datapath/worker/pod_device.h"

namespace vdpa {

// What an engine says it can do.
struct EngineLimits {
  uint64_t features = 0;
  uint64_t protocolFeatures = 0;
  uint32_t queuePairs = 1;
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

  // Starts connecting to `path` at once and never gives up.
  Engine(EventLoop& loop, std::string path, Events events);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Known once the engine was up for the first time.
  const std::optional<EngineLimits>& limits() const { return limits_; }
  bool up() const { return up_; }
  // Whether it moves packets of the device followed.
  bool running() const;

  // Follows this device, which must outlive it or be released.
  void follow(PodDevice* device);
  // Lets go of the device. The engine gets a new connection, so that it keeps nothing of the pod's.
  void release();
  // Brings the engine in line with the device. Throws ProtocolError when the device cannot be
  // served; what comes up later goes to `failed`.
  void update();
  // Whether the engine is in line, or gone: then positions are found in the rings themselves.
  bool settled() const;

 private:
  // What the engine has of one ring.
  struct Handed {
    bool given = false;
    bool enabled = false;
    SharedFd kick, call, error;
  };

  void connect();
  void reconnectLater();
  void lost(const std::string& reason, bool refused);
  void forgetLink();
  void learn();
  void learned();
  void advance();
  void stopRings();
  void shareMemory();
  void giveRing(uint32_t index);
  void refreshRing(uint32_t index);
  void sendDescriptor(Request request, uint32_t index, const SharedFd& descriptor);
  void sendState(Request request, uint32_t index, uint32_t value);
  void set(Request request, const void* payload, size_t size,
           std::vector<SharedFd> descriptors = {});
  void findPosition(uint32_t index);
  void wake();

  EventLoop& loop_;
  const std::string path_;
  const Events events_;

  std::unique_ptr<EngineLink> link_;
  std::optional<EngineLimits> limits_;  // of the engine that is, or was last, there
  bool learned_ = false;                // this connection's
  bool up_ = false;
  std::string lastReason_;
  uint64_t reconnectTimer_ = 0;
  std::chrono::milliseconds backOff_{};

  PodDevice* device_ = nullptr;
  std::vector<Handed> handed_;
  std::shared_ptr<const MemoryTable> handedMemory_;
  std::optional<uint64_t> handedFeatures_;
  uint32_t stopping_ = 0;   // rings whose GET_VRING_BASE is under way
  bool wakeRings_ = false;  // signal both sides once the rings run again
};

}  // namespace vdpa
