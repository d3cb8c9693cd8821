// Spreads the MAC table's keys over its buckets by a secret of this start. A pod chooses its source
// addresses and sees which of its frames are flooded; it must not learn from that which addresses
// share a bucket with another VLAN's station.
#pragma once

#include <cstdint>

namespace vdpa::vswitch {

class KeyedHash {
 public:
  struct Secret {
    uint64_t first, second;
  };
  // From the kernel's random generator. Throws std::system_error.
  static Secret randomSecret();

  explicit KeyedHash(Secret secret) : first_(secret.first), second_(secret.second | 1) {}

  // Every bit depends on the whole key and on the secret. Two rounds: the product of one alone is
  // linear but for its fold, and few collisions would tell the factor.
  uint64_t operator()(uint64_t key) const {
    return fold(fold(key ^ first_, second_) ^ second_, first_ | 1);
  }

 private:
  __extension__ using Product = unsigned __int128;

  // Both halves of the 128-bit product: neither can be undone without the other.
  static uint64_t fold(uint64_t a, uint64_t b) {
    const Product product = static_cast<Product>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  }

  uint64_t first_;
  uint64_t second_;  // odd: 0 would send every key to one bucket
};

}  // namespace vdpa::vswitch
