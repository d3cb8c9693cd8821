#include "deviceplugin/datapath/virtqueue/iotlb.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "deviceplugin/datapath/virtqueue/address_map.h"
#include "deviceplugin/datapath/virtqueue/fault.h"

namespace vdpa::virtqueue {

Iotlb::Iotlb(AddressMap byUser) : byUser_(std::move(byUser)), map_(AddressMap::ofIotlb()) {}

void Iotlb::update(uint64_t address, uint64_t bytes, uint64_t userAddress, Access access) {
  if (bytes == 0 || address + (bytes - 1) < address)
    throw VirtqueueError(fmt::format("an IOTLB entry of {} bytes at {:#x}", bytes, address));
  std::vector<Range> parts;  // one for each region it lies in
  size_t hint = 0;
  for (uint64_t done = 0; done < bytes;) {
    const uint64_t user = userAddress + done;
    const Range& region = byUser_[byUser_.find(user, hint)];
    if (!region.has(user))
      throw VirtqueueError(fmt::format(
          "an IOTLB entry of {} bytes at {:#x} is of memory at {:#x} that is not shared", bytes,
          address, user));
    const uint64_t part = std::min(bytes - done, region.from(user));
    parts.push_back({address + done, part, region.at(user), region.physicalAt(user), access});
    done += part;
  }
  map_.erase(address, bytes);
  if (map_.size() + parts.size() > kMaxRanges) map_ = AddressMap::ofIotlb();
  for (const Range& part : parts) map_.insert(part);
}

}  // namespace vdpa::virtqueue
