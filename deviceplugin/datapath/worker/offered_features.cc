#include "deviceplugin/datapath/worker/offered_features.h"

#include <algorithm>
#include <cstdint>

#include "deviceplugin/datapath/vhost_user/net_config.h"
#include "deviceplugin/datapath/vhost_user/session.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/options.h"

namespace vdpa::worker {

namespace feature = vhost_user::feature;
namespace protocol_feature = vhost_user::protocol_feature;
using vhost_user::kLinkUp;
using vhost_user::OfferedFeatures;

namespace {

// The features that a driver and an engine may agree on without any help from this worker. Left
// out, besides those that the engine lacks: LOG_ALL (migration) and ACCESS_PLATFORM (an IOTLB).
constexpr uint64_t kFeatures =
    kOffloads | feature::kMtu | feature::kMergeableBuffers | feature::kControlQueue |
    feature::kControlReceive | feature::kGuestAnnounce | feature::kMultiqueue |
    feature::kAnyLayout | feature::kIndirectDescriptors | feature::kEventIndex |
    feature::kProtocolFeatures | feature::kVersion1 | feature::kPackedRing;

constexpr uint64_t kProtocolFeatures = protocol_feature::kMultiqueue | protocol_feature::kReplyAck |
                                       protocol_feature::kMtu | protocol_feature::kBackendRequests |
                                       protocol_feature::kConfig | protocol_feature::kResetDevice |
                                       protocol_feature::kStatus;

// rte_vhost (DPDK 22.11), which moves the packets of the switches of earlier releases, trusts what
// a pod writes into its rings. A switch serves many pods, so such a one is offered no rings with
// which a pod could write beyond its own memory. Its bursts have 32 frames (MAX_PKT_BURST in
// lib/vhost/virtio_net.c), and each takes an entry of an array as long as the ring. Those releases
// gave it no ring of more than 1,024 entries.
constexpr uint32_t kSwitchMinQueueSize = 32, kSwitchMaxQueueSize = 1024;
// An indirect table's length is read twice, and may have changed in between.
constexpr uint64_t kSwitchNeverOffers = feature::kIndirectDescriptors;
// With mergeable buffers one frame may take every entry of the ring. Without them a frame must fit
// one receive buffer: drivers' ordinary ones hold those of the ordinary MTU.
constexpr uint16_t kMtuOfOrdinaryBuffers = 1500;

// Our switch has a configuration space, and checks all that it reads from rings. No rte_vhost has
// one for a network device (VHOST_USER_PROTOCOL_FEATURES in lib/vhost/vhost_user.h).
bool checksRings(const EngineLimits& limits) {
  return (limits.protocolFeatures & protocol_feature::kConfig) != 0;
}

void keepToSafeRings(OfferedFeatures& offered) {
  offered.features &= ~kSwitchNeverOffers;
  if (offered.config.mtu <= kMtuOfOrdinaryBuffers) offered.features &= ~feature::kMergeableBuffers;
  offered.minQueueSize = kSwitchMinQueueSize;
  offered.queueSize = std::min(offered.queueSize, kSwitchMaxQueueSize);
}

}  // namespace

OfferedFeatures offeredFeatures(const WorkerOptions& options, const EngineLimits& limits) {
  OfferedFeatures offered;
  offered.features = kFeatures & limits.features;
  if (!options.offloads) offered.features &= ~kOffloads;
  // Engines behind vdpa-pmd and the kernel's devices may give buffers back in any order, and do not
  // report when their links change. A switch of an earlier release does not either, but the next
  // one does, and a driver must find again what it has agreed on.
  if (options.behindSwitch) offered.features |= feature::kInOrder | feature::kLinkStatus;
  offered.protocolFeatures = kProtocolFeatures;
  offered.queuePairs = std::min(options.queuePairs, limits.queuePairs);
  offered.queueSize = std::min(options.queueSize, limits.queueSize);
  // The device's own MAC has precedence; vdpa-datapath compares it with a requested one.
  if (const auto mac = limits.mac ? limits.mac : options.mac) offered.config.mac = *mac;
  if (!offered.config.mac.isZero()) offered.features |= feature::kMac;
  if (limits.mtu) offered.config.mtu = *limits.mtu;
  if (const auto mtu = options.mtu; mtu && (!limits.mtu || *mtu < *limits.mtu))
    offered.config.mtu = *mtu;
  offered.config.maxQueuePairs = static_cast<uint16_t>(offered.queuePairs);
  offered.config.status = limits.linkUp ? kLinkUp : 0;
  if (options.behindSwitch && !checksRings(limits)) keepToSafeRings(offered);
  return offered;
}

}  // namespace vdpa::worker
