#include "deviceplugin/datapath/virtqueue/address_map.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "deviceplugin/datapath/virtqueue/fault.h"

namespace vdpa::virtqueue {
namespace {

bool continues(const Range& before, const Range& range) {
  return before.size > 0 && before.start + before.size == range.start &&
         before.host + before.size == range.host &&
         before.physical + before.size == range.physical && before.access == range.access;
}

// The part of `range` from `offset` on.
Range partOf(const Range& range, uint64_t offset, uint64_t size) {
  return {range.start + offset, size, range.host + offset, range.physical + offset, range.access};
}

bool before(const Range& one, const Range& other) {
  return one.start < other.start;
}

}  // namespace

AddressMap::AddressMap() : ranges_(1) {}

AddressMap AddressMap::ofIotlb() {
  AddressMap map;
  map.mayGrow_ = true;
  return map;
}

AddressMap AddressMap::ofRegions(std::vector<Range> regions) {
  if (regions.size() > kMaxRegions)
    throw VirtqueueError(
        fmt::format("{} memory regions; at most {} are possible", regions.size(), kMaxRegions));
  std::sort(regions.begin(), regions.end(), before);
  AddressMap map;
  for (const Range& region : regions) {
    if (region.size == 0 || region.start + (region.size - 1) < region.start)
      throw VirtqueueError(
          fmt::format("a memory region of {} bytes at {:#x}", region.size, region.start));
    if (map.size() > 0)
      if (const Range& last = map[map.size() - 1]; last.has(region.start))
        throw VirtqueueError(
            fmt::format("the memory regions at {:#x} and {:#x} overlap", last.start, region.start));
    map.ranges_.insert(map.ranges_.end() - 1, region);
  }
  return map;
}

size_t AddressMap::search(uint64_t address, size_t& hint) const {
  const auto end = ranges_.end() - 1;
  auto after = std::upper_bound(ranges_.begin(), end, address,
                                [](uint64_t a, const Range& range) { return a < range.start; });
  if (after == ranges_.begin() || !(after - 1)->has(address)) return size();
  return hint = static_cast<size_t>(after - 1 - ranges_.begin());
}

const Range* AddressMap::whole(uint64_t address, uint64_t bytes, Access access) const {
  size_t hint = 0;
  const Range& range = ranges_[find(address, hint)];
  if (!range.has(address) || range.from(address) < bytes || !allows(range.access, access))
    return nullptr;
  return &range;
}

void AddressMap::insert(const Range& range) {
  auto at = std::upper_bound(ranges_.begin(), ranges_.end() - 1, range, before);
  if (at != ranges_.begin() && continues(*(at - 1), range)) {
    (at - 1)->size += range.size;
    if (continues(*(at - 1), *at)) {
      (at - 1)->size += at->size;
      ranges_.erase(at);
    }
    return;
  }
  if (at->size > 0 && continues(range, *at)) {
    *at = {range.start, range.size + at->size, range.host, range.physical, range.access};
    return;
  }
  ranges_.insert(at, range);
}

void AddressMap::erase(uint64_t start, uint64_t bytes) {
  if (bytes == 0) return;
  const uint64_t last = start + std::min(bytes - 1, UINT64_MAX - start);
  std::vector<Range> kept;
  for (size_t i = 0; i < size(); ++i) {
    const Range& range = ranges_[i];
    const uint64_t rangeLast = range.start + (range.size - 1);
    if (rangeLast < start || range.start > last) {
      kept.push_back(range);
      continue;
    }
    if (range.start < start) kept.push_back(partOf(range, 0, start - range.start));
    if (rangeLast > last) kept.push_back(partOf(range, last + 1 - range.start, rangeLast - last));
  }
  kept.emplace_back();
  ranges_ = std::move(kept);
}

}  // namespace vdpa::virtqueue
