// The description of the pod's queues, as set up by a front-end, with which an engine is started.
// Written by the session, read (and the ring positions written) by the engine.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "deviceplugin/datapath/vhost_user/memory_table.h"
#include "deviceplugin/datapath/virtqueue/ring_layout.h"

namespace vdpa::vhost_user {

struct Vring {
  uint32_t size = 0;  // entries; 0 until SET_VRING_NUM
  // Where the device resumes, as in SET_VRING_BASE: the available index of a split ring; of a
  // packed one position and wrap counter (bit 15) of the driver's side and, in the upper half, of
  // the device's.
  uint32_t base = 0;
  // The engine died while it had this ring: `base` must be found in the ring itself.
  bool positionLost = false;
  std::optional<VringAddresses> addresses;
  SharedFd kick;
  SharedFd call;
  SharedFd error;
  bool started = false;  // from SET_VRING_KICK to GET_VRING_BASE
  bool enabled = false;
};

struct VhostDevice {
  uint64_t features = 0;
  uint64_t protocolFeatures = 0;
  uint8_t status = 0;
  std::shared_ptr<const MemoryTable> memory;
  std::vector<Vring> rings;

  bool has(uint64_t deviceFeature) const { return (features & deviceFeature) != 0; }
  bool hasProtocol(uint64_t protocolFeature) const {
    return (protocolFeatures & protocolFeature) != 0;
  }
  bool packed() const { return has(feature::kPackedRing); }
  virtqueue::Format format() const {
    return packed() ? virtqueue::Format::kPacked : virtqueue::Format::kSplit;
  }

  // Whether the engine should have the ring. A front-end that sends the status reports with it when
  // the driver is ready; others start rings only then.
  bool runs(const Vring& ring) const {
    return ring.started && (!hasProtocol(protocol_feature::kStatus) || (status & kStatusDriverOk));
  }
  // Without PROTOCOL_FEATURES there is no SET_VRING_ENABLE: rings are always enabled.
  bool enabled(const Vring& ring) const { return ring.enabled || !has(feature::kProtocolFeatures); }
};

// Throws ProtocolError unless the ring is set up and its three areas are aligned and each within
// one region of `memory` (null: none shared).
void checkRing(const VhostDevice& device, const MemoryTable* memory, size_t index);

}  // namespace vdpa::vhost_user
