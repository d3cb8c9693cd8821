#include "deviceplugin/datapath/worker/offered_features.h"

#include <algorithm>
#include <cstdint>

#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/options.h"
#include "deviceplugin/datapath/worker/protocol/session.h"
#include "deviceplugin/datapath/worker/protocol/vhost_user_protocol.h"

namespace vdpa::worker {
namespace {

// The features that a driver and an engine may agree on without any help from this worker. Left
// out, besides those that the engine lacks: LOG_ALL (migration), ACCESS_PLATFORM (an IOTLB), and
// IN_ORDER, with which an engine may skip used descriptors, so that the position in a packed ring
// would be lost with the engine.
constexpr uint64_t kFeatures =
    feature::kChecksum | feature::kGuestChecksum | feature::kMtu | feature::kGuestTso4 |
    feature::kGuestTso6 | feature::kGuestEcn | feature::kGuestUfo | feature::kHostTso4 |
    feature::kHostTso6 | feature::kHostEcn | feature::kHostUfo | feature::kMergeableBuffers |
    feature::kControlQueue | feature::kControlReceive | feature::kGuestAnnounce |
    feature::kMultiqueue | feature::kAnyLayout | feature::kIndirectDescriptors |
    feature::kEventIndex | feature::kProtocolFeatures | feature::kVersion1 | feature::kPackedRing;

constexpr uint64_t kProtocolFeatures = protocol_feature::kMultiqueue | protocol_feature::kReplyAck |
                                       protocol_feature::kMtu | protocol_feature::kConfig |
                                       protocol_feature::kResetDevice | protocol_feature::kStatus;

// rte_vhost (DPDK 22.11), which moves the switch's packets, trusts what a pod writes into its
// rings. The switch serves many pods, so it never gets rings with which a pod could write beyond
// its own memory. Its bursts have 32 frames (MAX_PKT_BURST in lib/vhost/virtio_net.c), and each
// takes an entry of an array as long as the ring.
constexpr uint32_t kSwitchMinQueueSize = 32;
// An indirect table's length is read twice, and may have changed in between.
constexpr uint64_t kSwitchNeverOffers = feature::kIndirectDescriptors;
// With mergeable buffers one frame may take every entry of the ring. Without them a frame must fit
// one receive buffer: drivers' ordinary ones hold those of the ordinary MTU.
constexpr uint16_t kMtuOfOrdinaryBuffers = 1500;

void keepToSafeRings(OfferedFeatures& offered) {
  offered.features &= ~kSwitchNeverOffers;
  if (offered.config.mtu <= kMtuOfOrdinaryBuffers) offered.features &= ~feature::kMergeableBuffers;
  offered.minQueueSize = kSwitchMinQueueSize;
}

}  // namespace

OfferedFeatures offeredFeatures(const WorkerOptions& options, const EngineLimits& limits) {
  OfferedFeatures offered;
  offered.features = kFeatures & limits.features;
  offered.protocolFeatures = kProtocolFeatures;
  offered.queuePairs = std::min(options.queuePairs, limits.queuePairs);
  offered.queueSize = std::min(options.queueSize, limits.queueSize);
  // The device's own MAC has precedence; vdpa-datapath compares it with a requested one.
  if (const auto mac = limits.mac ? limits.mac : options.mac) offered.config.mac = *mac;
  if (limits.mtu) offered.config.mtu = *limits.mtu;
  if (const auto mtu = options.mtu; mtu && (!limits.mtu || *mtu < *limits.mtu))
    offered.config.mtu = *mtu;
  offered.config.maxQueuePairs = static_cast<uint16_t>(offered.queuePairs);
  if (options.behindSwitch) keepToSafeRings(offered);
  return offered;
}

}  // namespace vdpa::worker
