#define VIRTIO_RING_NO_LEGACY  // the rest of the header is not C++
#include "tests/system/vdpa_test_driver/ring.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>

namespace vdpa_test {
namespace {

template <typename T>
T load(T& shared) {
  return std::atomic_ref<T>(shared).load(std::memory_order_acquire);
}

template <typename T>
void store(T& shared, T value) {
  std::atomic_ref<T>(shared).store(value, std::memory_order_release);
}

class SplitRing : public Ring {
 public:
  SplitRing(int vid, uint16_t number, const rte_vhost_vring& vring, rte_vhost_memory& memory)
      : Ring(vid, number, vring, memory) {
    rte_vhost_get_vring_base(vid, number, &available_, &used_);
  }

  bool next(Chain& chain) override {
    if (broken_ || load(vring_.avail->idx) == available_) return false;
    chain.pieces.clear();
    chain.id = vring_.avail->ring[available_ % vring_.size];
    uint16_t index = chain.id;
    for (unsigned count = 0; count < vring_.size; ++count) {
      if (index >= vring_.size) break;
      const vring_desc descriptor = vring_.desc[index];
      if (!addPiece(chain, descriptor.addr, descriptor.len,
                    (descriptor.flags & VRING_DESC_F_WRITE) != 0))
        break;
      if (!(descriptor.flags & VRING_DESC_F_NEXT)) {
        ++available_;
        return true;
      }
      index = descriptor.next;
    }
    broken_ = true;
    return false;
  }

  void finish(const Chain& chain, uint32_t written) override {
    vring_.used->ring[used_ % vring_.size] = {chain.id, written};
    store(vring_.used->idx, ++used_);
  }

  void save() override { rte_vhost_set_vring_base(vid_, number_, available_, used_); }

 private:
  bool wantsInterrupt() const override {
    return !(load(vring_.avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
  }

  uint16_t available_ = 0, used_ = 0;
};

class PackedRing : public Ring {
 public:
  PackedRing(int vid, uint16_t number, const rte_vhost_vring& vring, rte_vhost_memory& memory)
      : Ring(vid, number, vring, memory) {
    uint16_t available = 0, used = 0;
    rte_vhost_get_vring_base(vid, number, &available, &used);
    available_ = Position(available);
    used_ = Position(used);
  }

  bool next(Chain& chain) override {
    if (broken_ || !isAvailable()) return false;
    chain.pieces.clear();
    chain.descriptors = 0;
    while (chain.descriptors < vring_.size) {
      const auto& descriptor = at(available_);
      const uint16_t flags = load(at(available_).flags);
      if (!addPiece(chain, descriptor.addr, descriptor.len, (flags & VRING_DESC_F_WRITE) != 0))
        break;
      available_.advance(1, vring_.size);
      ++chain.descriptors;
      if (flags & VRING_DESC_F_NEXT) continue;
      chain.id = descriptor.id;
      return true;
    }
    broken_ = true;
    return false;
  }

  void finish(const Chain& chain, uint32_t written) override {
    auto& descriptor = at(used_);
    descriptor.id = chain.id;
    descriptor.len = written;
    uint16_t flags = written > 0 ? VRING_DESC_F_WRITE : 0;
    if (used_.wrap) flags |= kAvailable | kUsed;
    store(descriptor.flags, flags);
    used_.advance(chain.descriptors, vring_.size);
  }

  void save() override { rte_vhost_set_vring_base(vid_, number_, available_.word(), used_.word()); }

 private:
  static constexpr uint16_t kAvailable = 1 << VRING_PACKED_DESC_F_AVAIL;
  static constexpr uint16_t kUsed = 1 << VRING_PACKED_DESC_F_USED;

  struct Position {
    Position() = default;
    explicit Position(uint16_t word) : index(word & 0x7fff), wrap(word >> 15) {}
    uint16_t word() const { return static_cast<uint16_t>(index | wrap << 15); }
    void advance(unsigned count, unsigned size) {
      index = static_cast<uint16_t>(index + count);
      if (index < size) return;
      index = static_cast<uint16_t>(index - size);
      wrap = !wrap;
    }
    uint16_t index = 0;
    bool wrap = true;
  };

  vring_packed_desc& at(Position position) { return vring_.desc_packed[position.index]; }
  bool isAvailable() {
    const uint16_t flags = load(at(available_).flags);
    return bool(flags & kAvailable) == available_.wrap && bool(flags & kUsed) != available_.wrap;
  }
  bool wantsInterrupt() const override {
    return load(vring_.driver_event->flags) != VRING_PACKED_EVENT_FLAG_DISABLE;
  }

  Position available_, used_;
};

}  // namespace

std::unique_ptr<Ring> Ring::open(int vid, uint16_t number, rte_vhost_memory& memory) {
  rte_vhost_vring vring{};
  uint64_t features = 0;
  if (rte_vhost_get_vhost_vring(vid, number, &vring) != 0 || !vring.desc || !vring.avail ||
      !vring.used || vring.kickfd < 0 || vring.callfd < 0 ||
      rte_vhost_get_negotiated_features(vid, &features) != 0)
    return nullptr;
  if (features & 1ull << VIRTIO_F_RING_PACKED)
    return std::make_unique<PackedRing>(vid, number, vring, memory);
  return std::make_unique<SplitRing>(vid, number, vring, memory);
}

bool Ring::addPiece(Chain& chain, uint64_t address, uint32_t length, bool writable) const {
  uint64_t contiguous = length;
  const uint64_t data = rte_vhost_va_from_guest_pa(&memory_, address, &contiguous);
  if (!data || contiguous < length) return false;
  chain.pieces.push_back({reinterpret_cast<uint8_t*>(data), length, writable});
  return true;
}

void Ring::interrupt() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!wantsInterrupt()) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = ::write(vring_.callfd, &one, sizeof one);
}

}  // namespace vdpa_test
