// One front-end's session: the protocol's state machine, without I/O. It takes messages one by one
// and provides the reply, if any, and the description of the pod's queues. All messages are checked
// here, so device() can be passed to an engine as it is.
#pragma once

#include <optional>

#include "deviceplugin/datapath/vhost_user/backend_channel.h"
#include "deviceplugin/datapath/vhost_user/net_config.h"
#include "deviceplugin/datapath/vhost_user/vhost_device.h"

namespace vdpa::vhost_user {

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
  // Leaves in the message what it doesn't take of the descriptors.
  void handle(Message&& message);

  // The reply to the last handled message, if it has one. To be called once the engine has followed
  // device(): only then is a ring stopped and its position known, and an acknowledgement true.
  std::optional<std::vector<std::byte>> takeReply();
  // The same of a message that handle() threw for, or that could not be carried out: an
  // acknowledgement that says so, if the front-end wants one.
  std::optional<std::vector<std::byte>> takeRefusal();

  // Sets the status of the link, which the front-end reads in the configuration space. Changes are
  // sent to a front-end that has given a channel for them.
  void setLink(bool up);

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
  void setMemory(Message& message);
  void setRingSize(VringState state);
  void setRingBase(VringState state);
  void setRingAddresses(const VringAddresses& addresses);
  void setRingDescriptor(Message& message);
  void stopRing(VringState state);
  void enableRing(VringState state);
  void setStatus(uint64_t status);
  void getConfig(const Message& message);
  void setMtu(uint64_t mtu);
  void setBackendChannel(Message& message);
  void stopAllRings();

  Vring& ring(uint64_t index);
  Vring& stoppedRing(uint64_t index);
  bool anyStarted() const;
  void need(uint64_t protocolFeature, const char* name) const;
  void answer(uint64_t value);

  OfferedFeatures offered_;  // only the status of the link changes
  VhostDevice device_;
  Pending pending_;
  BackendChannel backendChannel_;
  bool featuresRead_ = false, featuresSet_ = false;
};

}  // namespace vdpa::vhost_user
