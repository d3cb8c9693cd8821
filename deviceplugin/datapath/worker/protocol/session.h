// One front-end's session: the protocol's state machine, without I/O. It takes messages one by one
// and provides the reply, if any, and the description of the pod's queues. All messages are checked
// here, so device() can be passed to an engine as it is.
#pragma once

#include <optional>

#include "deviceplugin/datapath/worker/protocol/net_config.h"
#include "deviceplugin/datapath/worker/protocol/vhost_device.h"

namespace vdpa::worker {

// The capabilities of this back-end: our own limits, reduced to the engine's.
struct OfferedFeatures {
  uint64_t features = 0;
  uint64_t protocolFeatures = 0;
  uint32_t queuePairs = 1;
  uint32_t queueSize = kMaxQueueSize;  // the largest ring accepted
  uint32_t minQueueSize = 1;           // the smallest
  NetConfig config;
};

class Session {
 public:
  explicit Session(const OfferedFeatures& offered);

  // Takes one message. Throws ProtocolError if the front-end may not send it like this or now; the
  // session is over then.
  void handle(Message message);

  // The reply to the last handled message, if it has one. To be called once the engine has followed
  // device(): only then is a ring stopped and its position known, and an acknowledgement true.
  std::optional<std::vector<std::byte>> takeReply();

  // Whether the front-end has read the offered features but not agreed on any yet.
  bool leftForFeatures() const { return featuresRead_ && !featuresSet_; }

  VhostDevice& device() { return device_; }
  const VhostDevice& device() const { return device_; }

 private:
  struct Pending {
    Request request{};
    bool acknowledge = false;
    uint64_t refused = 0;                 // the value of an acknowledgement: 0 is success
    std::vector<std::byte> payload;       // of a request that has an answer of its own
    std::optional<uint32_t> stoppedRing;  // GET_VRING_BASE: the answer is this ring's position
    bool answers = false;
  };

  void dispatch(Message& message);
  void setFeatures(uint64_t features);
  void setProtocolFeatures(uint64_t features);
  void setMemory(Message message);
  void setRingSize(VringState state);
  void setRingBase(VringState state);
  void setRingAddresses(const VringAddresses& addresses);
  void setRingDescriptor(Message& message);
  void stopRing(VringState state);
  void enableRing(VringState state);
  void setStatus(uint64_t status);
  void getConfig(const Message& message);
  void setMtu(uint64_t mtu);
  void stopAllRings();

  Vring& ring(uint64_t index);
  Vring& stoppedRing(uint64_t index);
  bool anyStarted() const;
  void need(uint64_t protocolFeature, const char* name) const;
  void answer(uint64_t value);

  const OfferedFeatures offered_;
  VhostDevice device_;
  Pending pending_;
  bool featuresRead_ = false, featuresSet_ = false;
};

}  // namespace vdpa::worker
