// The translations that a front-end with VIRTIO_F_ACCESS_PLATFORM (6) sends: from the driver's I/O
// virtual addresses to addresses of the front-end's process, whose memory is shared as regions
// (vhost-user: "IOMMU support", VHOST_USER_IOTLB_MSG).
//
// If it lacks an address, BufferReader::miss() has it: the caller sends a VHOST_IOTLB_MISS and lets
// the ring read again after the update. Rings themselves
// lie at I/O virtual addresses too: when an invalidation hits one, the caller stops it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "deviceplugin/datapath/virtqueue/address_map.h"

namespace vdpa::virtqueue {

class Iotlb {
 public:
  // The most ranges that are kept. When they are used up, all are forgotten; misses then bring back
  // those in use.
  static constexpr size_t kMaxRanges = 2048;

  // `byUser` maps addresses of the front-end's process; a copy is kept.
  explicit Iotlb(AddressMap byUser);

  // VHOST_IOTLB_UPDATE. Replaces what was known of these addresses. Throws VirtqueueError when the
  // memory is not shared or the range wraps around.
  void update(uint64_t address, uint64_t bytes, uint64_t userAddress, Access access);
  // VHOST_IOTLB_INVALIDATE.
  void invalidate(uint64_t address, uint64_t bytes) { map_.erase(address, bytes); }

  const AddressMap& map() const { return map_; }

 private:
  AddressMap byUser_;
  AddressMap map_;
};

}  // namespace vdpa::virtqueue
