#include "deviceplugin/datapath/switch/offload/checksum.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace vdpa::vswitch {
namespace {

uint64_t eightBytes(const std::byte* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

// 2^16 is 1 in ones' complement arithmetic of 16 bits, so halves can be added to each other.
uint64_t halves(uint64_t sum) {
  return (sum & 0xffffffff) + (sum >> 32);
}

}  // namespace

Sum sumOf(std::span<const std::byte> bytes) {
  const std::byte* at = bytes.data();
  size_t left = bytes.size();
  // Four sums, which the processor can add to at once. A half of a word is below 2^32, so that they
  // overflow after 32 GiB at the earliest.
  uint64_t a = 0, b = 0, c = 0, d = 0;
  for (; left >= 32; at += 32, left -= 32) {
    a += halves(eightBytes(at));
    b += halves(eightBytes(at + 8));
    c += halves(eightBytes(at + 16));
    d += halves(eightBytes(at + 24));
  }
  for (; left >= 8; at += 8, left -= 8) a += halves(eightBytes(at));
  if (left > 0) {
    uint64_t last = 0;
    std::memcpy(&last, at, left);
    b += halves(last);
  }
  return halves(halves(a) + halves(b) + halves(c) + halves(d));
}

uint16_t fold(Sum sum) {
  sum = halves(halves(sum));
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>((sum & 0xffff) + (sum >> 16));
}

}  // namespace vdpa::vswitch
