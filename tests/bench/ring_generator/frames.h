// The frames that guests send each other: UDP or TCP in IPv4, with a sequence number and a time in
// the payload, and content that tells whether every byte has arrived.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "common/mac_address.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"

namespace vdpa::bench {

inline constexpr uint32_t kBroadcast = ~0u;  // instead of a guest's number

// A guest's address: 02:00:00:00, and its number in two bytes.
constexpr MacAddress macOf(uint32_t guest) {
  if (guest == kBroadcast) return MacAddress({0xff, 0xff, 0xff, 0xff, 0xff, 0xff});
  return MacAddress({2, 0, 0, 0, static_cast<uint8_t>(guest >> 8), static_cast<uint8_t>(guest)});
}

// The fields that vary from frame to frame.
struct Stamp {
  uint64_t sequence = 0;  // of the sender
  uint64_t time = 0;      // cycles of the sender's clock
};

// How frames look. Lengths in bytes, without the FCS.
class FrameFormat {
 public:
  static constexpr uint32_t kShortest = 60;
  static constexpr uint16_t kSegment = 1448;  // of a TCP payload

  // `segmented`: a TCP segment that the receiver or the device cuts into smaller ones (TSO).
  FrameFormat(uint32_t length, bool segmented) : length_(length), segmented_(segmented) {}

  uint32_t length() const { return length_; }

  // Writes all of a frame and the header in front of it (virtio 1.2, 5.1.6).
  void prepare(std::byte* frame, uint32_t from, uint32_t to) const;
  // Of a prepared frame. Touches its first cache line only, or the first two if it is segmented.
  void address(std::byte* frame, uint32_t to) const {
    std::memcpy(frame, macOf(to).bytes().data(), kMac);
  }
  // Any address, in the low 48 bits.
  void destination(std::byte* frame, uint64_t mac) const;
  void source(std::byte* frame, uint64_t mac) const { destination(frame + kMac, mac); }
  void flow(std::byte* frame, uint16_t number) const;  // the source port
  void stamp(std::byte* frame, const Stamp& stamp) const {
    std::memcpy(frame + stampAt(), &stamp, sizeof stamp);
  }
  // All bytes after the stamp, by its number.
  void fill(std::byte* frame, uint32_t from, uint64_t sequence) const;

  // Of a received frame whose first bytes, at least kShortest, are in one buffer.
  static uint32_t sender(std::span<const std::byte> start) {
    return std::to_integer<uint32_t>(start[2 * kMac - 2]) << 8 |
           std::to_integer<uint32_t>(start[2 * kMac - 1]);
  }
  static bool isFor(std::span<const std::byte> start, uint32_t guest) {  // or broadcast
    return std::memcmp(start.data(), macOf(guest).bytes().data(), kMac) == 0 ||
           std::memcmp(start.data(), macOf(kBroadcast).bytes().data(), kMac) == 0;
  }
  Stamp stampOf(std::span<const std::byte> start) const {
    Stamp stamp;
    std::memcpy(&stamp, start.data() + stampAt(), sizeof stamp);
    return stamp;
  }
  // Whether all bytes from `offset` on are as fill() made them; `part` begins at the offset.
  bool intact(std::span<const std::byte> part, uint32_t offset, uint32_t from,
              uint64_t sequence) const;

 private:
  static constexpr size_t kMac = 6;

  uint32_t stampAt() const { return segmented_ ? 54 : 42; }

  uint32_t length_;
  bool segmented_;
};

}  // namespace vdpa::bench
