#include "deviceplugin/datapath/switch/ports/features.h"

#include <cstddef>
#include <cstdint>

#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/vhost_user/session.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/receive.h"

namespace vdpa::vswitch {
namespace {

namespace feature = vhost_user::feature;
namespace protocol_feature = vhost_user::protocol_feature;

// The same as rte_vhost's (DPDK 22.11, VIRTIO_NET_SUPPORTED_FEATURES in lib/vhost/vhost.h): workers
// and drivers have agreed on these with earlier switches. Left out: LOG_ALL (migration) and
// ACCESS_PLATFORM (an IOTLB). The control queue is the worker's or the front-end's own.
constexpr uint64_t kFeatures =
    feature::kVersion1 | feature::kMergeableBuffers | feature::kIndirectDescriptors |
    feature::kEventIndex | feature::kPackedRing | feature::kInOrder | feature::kMultiqueue |
    feature::kAnyLayout | feature::kControlQueue | feature::kControlReceive |
    feature::kGuestAnnounce | feature::kMtu | feature::kProtocolFeatures;

// Without UFO, which offload/ does not have.
constexpr uint64_t kOffloads = feature::kChecksum | feature::kGuestChecksum | feature::kGuestTso4 |
                               feature::kGuestTso6 | feature::kGuestEcn | feature::kHostTso4 |
                               feature::kHostTso6 | feature::kHostEcn | feature::kGuestUso4 |
                               feature::kGuestUso6 | feature::kHostUso;

// By CONFIG workers know that this switch checks its rings (worker/offered_features.cc); by both,
// the port's link.
constexpr uint64_t kProtocolFeatures = protocol_feature::kMultiqueue | protocol_feature::kReplyAck |
                                       protocol_feature::kMtu | protocol_feature::kBackendRequests |
                                       protocol_feature::kConfig | protocol_feature::kStatus;

constexpr uint16_t kMaxMtu = 65535;  // the worker has the port's own

struct Pair {
  uint64_t feature;
  Offloads offload;
};

// Segmentation needs a checksum that is left to the other side, and the ECN bits need segmentation
// (virtio 1.2, 5.1.3.1): without it they are nothing.
template <size_t N>
Offloads offloadsOf(uint64_t features, uint64_t checksum, const Pair (&pairs)[N]) {
  if (!(features & checksum)) return Offloads::kNone;
  Offloads offloads = Offloads::kChecksum;
  for (const Pair& pair : pairs)
    if (features & pair.feature) offloads = offloads | pair.offload;
  if (covers(offloads, Offloads::kTso4) || covers(offloads, Offloads::kTso6)) return offloads;
  return static_cast<Offloads>(static_cast<uint8_t>(offloads) &
                               ~static_cast<uint8_t>(Offloads::kEcn));
}

}  // namespace

vhost_user::OfferedFeatures offeredFeatures(bool offloads, unsigned queuePairs) {
  vhost_user::OfferedFeatures offered;
  offered.features = kFeatures | (offloads ? kOffloads : 0);
  offered.protocolFeatures = kProtocolFeatures;
  offered.queuePairs = queuePairs;
  offered.queueSize = vhost_user::kMaxQueueSize;
  offered.config.maxQueuePairs = static_cast<uint16_t>(queuePairs);
  offered.config.mtu = kMaxMtu;
  return offered;
}

virtqueue::NetFormat formatOf(uint64_t features) {
  const bool mergeable = (features & feature::kMergeableBuffers) != 0;
  const bool modern = (features & feature::kVersion1) != 0;
  return {modern || mergeable ? virtqueue::kHeaderSize : virtqueue::kLegacyHeaderSize, mergeable};
}

Offloads offloadsSent(uint64_t features) {
  constexpr Pair kPairs[] = {{feature::kHostTso4, Offloads::kTso4},
                             {feature::kHostTso6, Offloads::kTso6},
                             {feature::kHostEcn, Offloads::kEcn},
                             {feature::kHostUso, Offloads::kUso4 | Offloads::kUso6}};
  return offloadsOf(features, feature::kChecksum, kPairs);
}

Offloads offloadsReceived(uint64_t features) {
  constexpr Pair kPairs[] = {{feature::kGuestTso4, Offloads::kTso4},
                             {feature::kGuestTso6, Offloads::kTso6},
                             {feature::kGuestEcn, Offloads::kEcn},
                             {feature::kGuestUso4, Offloads::kUso4},
                             {feature::kGuestUso6, Offloads::kUso6}};
  return offloadsOf(features, feature::kGuestChecksum, kPairs);
}

}  // namespace vdpa::vswitch
