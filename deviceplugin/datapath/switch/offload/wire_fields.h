// Fields of packets in our memory, in network byte order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace vdpa::vswitch {

inline uint8_t byteAt(const std::byte* at) {
  return static_cast<uint8_t>(*at);
}
inline uint16_t wordAt(const std::byte* at) {
  return static_cast<uint16_t>(byteAt(at) << 8 | byteAt(at + 1));
}
inline uint32_t longAt(const std::byte* at) {
  return static_cast<uint32_t>(wordAt(at)) << 16 | wordAt(at + 2);
}
inline void setWord(std::byte* at, uint32_t value) {
  at[0] = static_cast<std::byte>(value >> 8);
  at[1] = static_cast<std::byte>(value);
}
inline void setLong(std::byte* at, uint32_t value) {
  setWord(at, value >> 16);
  setWord(at + 2, value);
}

// Checksums and their parts, which are in the packet's byte order (checksum.h).
inline uint16_t sumAt(const std::byte* at) {
  uint16_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}
inline void setSum(std::byte* at, uint16_t value) {
  std::memcpy(at, &value, sizeof value);
}
inline uint16_t asSum(uint32_t value) {
  return static_cast<uint16_t>((value & 0xff) << 8 | (value >> 8 & 0xff));
}

}  // namespace vdpa::vswitch
