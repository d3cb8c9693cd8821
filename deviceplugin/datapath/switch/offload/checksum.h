// The Internet checksum (RFC 1071): the ones' complement of the ones' complement sum of 16-bit
// words. The sum does not depend on the byte order, except for the order of its own bytes: words
// are added as they lie in memory, and the result is stored as it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace vdpa::vswitch {

// A sum that has not been folded to 16 bits yet, of words in network byte order.
using Sum = uint64_t;

// The sum of bytes in our memory, which must begin at an even offset of the summed data. An odd
// last byte counts as if a zero followed. Up to 2^16 such sums can be added.
Sum sumOf(std::span<const std::byte> bytes);

// Folds a sum to 16 bits.
uint16_t fold(Sum sum);

// Subtracts `part`, one of the words that were added.
inline Sum without(Sum sum, uint16_t part) {
  return sum + static_cast<uint16_t>(~part);
}

// The checksum of a transport header: a sum of zero is stored as its other form, since a UDP
// checksum of 0 means that there is none (RFC 768); to TCP both are the same.
inline uint16_t transportChecksum(Sum sum) {
  const auto checksum = static_cast<uint16_t>(~fold(sum));
  return checksum == 0 ? 0xffff : checksum;
}

}  // namespace vdpa::vswitch
