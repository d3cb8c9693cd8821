// 802.1Q tags in the heads of frames. In the switch frames have none: a frame's VLAN is beside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"

namespace vdpa::vswitch {

inline constexpr uint32_t kEthernetHeader = 14;  // bytes
inline constexpr uint32_t kTagBytes = 4;
inline constexpr size_t kTagOffset = 12;  // behind the two addresses
inline constexpr uint16_t kVlanMask = 0xfff;
// EtherTypes as a little-endian machine loads them.
inline constexpr uint16_t kTagType = 0x0081;         // 802.1Q, 0x8100
inline constexpr uint16_t kServiceTagType = 0xa888;  // 802.1ad, 0x88a8

inline bool isTag(uint16_t type) {
  return type == kTagType || type == kServiceTagType;
}

inline uint16_t typeOf(const virtqueue::Frame& frame) {
  uint16_t type;
  std::memcpy(&type, frame.head.data() + kTagOffset, sizeof type);
  return type;
}

// The priority and the VLAN of a frame's tag.
inline uint16_t tagControl(const virtqueue::Frame& frame) {
  uint16_t control;
  std::memcpy(&control, frame.head.data() + kTagOffset + sizeof kTagType, sizeof control);
  return __builtin_bswap16(control);
}

// Removes the tag of a frame that has one and is long enough for it. Returns its VLAN.
inline uint16_t removeTag(virtqueue::Frame& frame) {
  std::byte* at = frame.head.data() + kTagOffset;
  uint16_t control;
  std::memcpy(&control, at + 2, sizeof control);
  std::memmove(at, at + kTagBytes, virtqueue::Frame::kHeadSize - kTagOffset - kTagBytes);
  frame.headBytes -= kTagBytes;
  frame.length -= kTagBytes;
  return __builtin_bswap16(control) & kVlanMask;
}

// `vlan`: with its priority, if it has one.
inline void insertTag(virtqueue::Frame& frame, uint16_t vlan) {
  static_assert(virtqueue::Frame::kHeadRoom >= kTagBytes);
  std::byte* at = frame.head.data() + kTagOffset;
  std::memmove(at + kTagBytes, at, virtqueue::Frame::kHeadSize - kTagOffset);
  const uint16_t control = __builtin_bswap16(vlan);
  std::memcpy(at, &kTagType, sizeof kTagType);
  std::memcpy(at + 2, &control, sizeof control);
  frame.headBytes += kTagBytes;
  frame.length += kTagBytes;
}

// Adapts the offsets of a header, which count from the frame's start, when `bytes` are inserted
// behind the addresses, or removed (negative). Offsets within the Ethernet header are the sender's
// mistake and stay as they are.
inline void shiftOffsets(virtqueue::NetHeader& header, int bytes) {
  if (header.checksumStart >= kEthernetHeader)
    header.checksumStart = static_cast<uint16_t>(header.checksumStart + bytes);
  if (header.headerLength >= kEthernetHeader)
    header.headerLength = static_cast<uint16_t>(header.headerLength + bytes);
}

}  // namespace vdpa::vswitch
