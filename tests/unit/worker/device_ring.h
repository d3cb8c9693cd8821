// The device's side of a virtqueue, split or packed: takes chains of buffers and returns them in
// order (virtio 1.2, 2.7 and 2.8).
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <vector>

#include "deviceplugin/datapath/worker/engines/vhost_vdpa_device.h"

namespace vdpa::worker::test {

class DeviceRing {
 public:
  // The memory of `size` bytes that the device accesses at this address.
  using Memory = std::function<std::byte*(uint64_t address, uint64_t size)>;
  struct Buffer {
    std::byte* data;
    uint32_t size;
  };
  struct Chain {
    uint16_t id = 0;
    uint16_t entries = 0;         // of a packed ring
    std::vector<Buffer> buffers;  // buffers that the device reads, then buffers that it writes
  };

  DeviceRing(const VhostVdpaDevice::Queue& where, bool packed, Memory memory)
      : where_(where), packed_(packed), memory_(std::move(memory)) {
    if (packed_) {
      next_ = where.base & 0x7fff;
      wrap_ = where.base >> 15 & 1;
      used_ = where.base >> 16 & 0x7fff;
      usedWrap_ = where.base >> 31;
    } else {
      next_ = used_ = static_cast<uint16_t>(where.base);
    }
  }

  // The position, in the form of VHOST_GET_VRING_BASE.
  uint32_t base() const {
    if (!packed_) return next_;
    return next_ | uint32_t{wrap_} << 15 | uint32_t{used_} << 16 | uint32_t{usedWrap_} << 31;
  }

  std::optional<Chain> take() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return packed_ ? takePacked() : takeSplit();
  }

  void put(const Chain& chain, uint32_t written) {
    std::atomic_thread_fence(std::memory_order_release);
    if (!packed_) {
      const uint32_t element[2] = {chain.id, written};
      store(where_.used + 4 + 8 * (used_ % where_.size), element);
      std::atomic_thread_fence(std::memory_order_release);
      store(where_.used + 2, ++used_);
      return;
    }
    const uint64_t entry = where_.descriptors + 16 * used_;
    store(entry + 8, written);
    store(entry + 12, chain.id);
    std::atomic_thread_fence(std::memory_order_release);
    store(entry + 14, static_cast<uint16_t>(usedWrap_ ? kAvailable | kUsed : 0));
    advance(used_, usedWrap_, chain.entries);
  }

 private:
  static constexpr uint16_t kNext = 1, kAvailable = 1 << 7, kUsed = 1 << 15;

  template <typename T>
  T load(uint64_t address) const {
    T value;
    std::memcpy(&value, memory_(address, sizeof value), sizeof value);
    return value;
  }
  template <typename T>
  void store(uint64_t address, const T& value) const {
    std::memcpy(memory_(address, sizeof value), &value, sizeof value);
  }
  Buffer buffer(uint64_t entry) const {
    const auto size = load<uint32_t>(entry + 8);
    return {memory_(load<uint64_t>(entry), size), size};
  }
  void advance(uint16_t& position, bool& wrap, uint16_t entries) const {
    position = static_cast<uint16_t>(position + entries);
    if (position < where_.size) return;
    position = static_cast<uint16_t>(position - where_.size);
    wrap = !wrap;
  }

  std::optional<Chain> takeSplit() {
    if (load<uint16_t>(where_.available + 2) == next_) return std::nullopt;
    Chain chain;
    chain.id = load<uint16_t>(where_.available + 4 + 2 * (next_++ % where_.size));
    for (uint16_t entry = chain.id;;) {
      const uint64_t at = where_.descriptors + 16 * entry;
      chain.buffers.push_back(buffer(at));
      if (!(load<uint16_t>(at + 12) & kNext)) return chain;
      entry = load<uint16_t>(at + 14);
    }
  }

  std::optional<Chain> takePacked() {
    const auto flags = load<uint16_t>(where_.descriptors + 16 * next_ + 14);
    if (((flags & kAvailable) != 0) != wrap_ || ((flags & kUsed) != 0) == wrap_)
      return std::nullopt;
    Chain chain;
    for (;;) {
      const uint64_t at = where_.descriptors + 16 * next_;
      chain.buffers.push_back(buffer(at));
      chain.id = load<uint16_t>(at + 12);
      ++chain.entries;
      const bool more = load<uint16_t>(at + 14) & kNext;
      advance(next_, wrap_, 1);
      if (!more) return chain;
    }
  }

  const VhostVdpaDevice::Queue where_;
  const bool packed_;
  const Memory memory_;
  uint16_t next_ = 0, used_ = 0;
  bool wrap_ = true, usedWrap_ = true;  // of a packed ring
};

}  // namespace vdpa::worker::test
