// Distributes the MAC table's keys over its buckets by a secret that is new at each start. A pod
// chooses its source addresses and sees which of its frames are flooded; it must not learn from
// that which addresses share a bucket with a station of another VLAN.
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

  // Every bit depends on the whole key and on the secret. Two rounds, since a single product is
  // linear except for its fold, and a few collisions would reveal the factor.
  uint64_t operator()(uint64_t key) const {
    return fold(fold(key ^ first_, second_) ^ second_, first_ | 1);
  }

 private:
  __extension__ using Product = unsigned __int128;

  // Combines both halves of the 128-bit product: neither can be inverted without the other.
  static uint64_t fold(uint64_t a, uint64_t b) {
    const Product product = static_cast<Product>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  }

  uint64_t first_;
  uint64_t second_;  // odd: 0 would map every key to one bucket
};

}  // namespace vdpa::vswitch
