#include "tests/bench/ring_generator/frames.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "deviceplugin/datapath/virtqueue/net_header.h"

namespace vdpa::bench {
namespace {

constexpr size_t kIp = 14, kIpHeader = 20, kTransport = kIp + kIpHeader;
constexpr size_t kTcpHeader = 20, kUdpHeader = 8;
constexpr uint8_t kTcp = 6, kUdp = 17;

void put8(std::byte* at, uint8_t value) {
  *at = std::byte{value};
}

void put16(std::byte* at, uint32_t value) {  // big-endian, as all of a frame
  put8(at, static_cast<uint8_t>(value >> 8));
  put8(at + 1, static_cast<uint8_t>(value));
}

void put32(std::byte* at, uint32_t value) {
  put16(at, value >> 16);
  put16(at + 2, value);
}

uint32_t sum16(const std::byte* at, size_t bytes) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes; i += 2)
    sum += std::to_integer<uint32_t>(at[i]) << 8 | std::to_integer<uint32_t>(at[i + 1]);
  return sum;
}

uint32_t folded(uint32_t sum) {
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

// The eight bytes of a frame's content from `offset` on, a multiple of 8.
uint64_t contentAt(uint32_t offset, uint32_t from, uint64_t sequence) {
  return (sequence + (uint64_t{from} << 40) + offset) * 0x9e3779b97f4a7c15;
}

// Calls `step(at, word, count)` for each part of a word of the content in [begin, end): `count`
// bytes of `word`, from its lowest on, belong `at` bytes into the frame.
template <typename Step>
void eachPart(uint32_t begin, uint32_t end, uint32_t from, uint64_t sequence, Step&& step) {
  for (uint32_t at = begin; at < end;) {
    const uint32_t inside = at % 8, count = std::min(8 - inside, end - at);
    step(at, contentAt(at - inside, from, sequence) >> (8 * inside), count);
    at += count;
  }
}

}  // namespace

void FrameFormat::prepare(std::byte* frame, uint32_t from, uint32_t to) const {
  virtqueue::NetHeader header;
  std::memset(frame, 0, length_);
  address(frame, to);
  std::memcpy(frame + kMac, macOf(from).bytes().data(), kMac);
  put16(frame + 2 * kMac, 0x0800);

  const auto ipLength = static_cast<uint32_t>(length_ - kIp);
  put8(frame + kIp, 0x45);
  put16(frame + kIp + 2, ipLength);
  put8(frame + kIp + 8, 64);
  put8(frame + kIp + 9, segmented_ ? kTcp : kUdp);
  put32(frame + kIp + 12, 0x0a000000 | from);  // 10.0.0.0/8
  put32(frame + kIp + 16, 0x0a000000 | (to & 0xffff));
  put16(frame + kIp + 10, ~folded(sum16(frame + kIp, kIpHeader)));

  const auto length = static_cast<uint32_t>(ipLength - kIpHeader);
  put16(frame + kTransport + 2, 9);  // discard
  if (segmented_) {
    put8(frame + kTransport + 12, kTcpHeader / 4 << 4);
    put8(frame + kTransport + 13, 0x10);  // ACK
    put16(frame + kTransport + 14, 0xffff);
    // The sum of the pseudo header, which whoever fills in the checksum begins with (5.1.6.2).
    put16(frame + kTransport + 16, folded(sum16(frame + kIp + 12, 8) + kTcp + length));
    header.flags = 1;    // VIRTIO_NET_HDR_F_NEEDS_CSUM
    header.gsoType = 1;  // VIRTIO_NET_HDR_GSO_TCPV4
    header.headerLength = kTransport + kTcpHeader;
    header.gsoSize = kSegment;
    header.checksumStart = kTransport;
    header.checksumOffset = 16;
  } else {
    put16(frame + kTransport + 4, length);  // no checksum: 0 (RFC 768)
  }
  fill(frame, from, 0);
  std::memcpy(frame - sizeof header, &header, sizeof header);
}

void FrameFormat::destination(std::byte* frame, uint64_t mac) const {
  put16(frame, static_cast<uint32_t>(mac >> 32));
  put32(frame + 2, static_cast<uint32_t>(mac));
}

void FrameFormat::flow(std::byte* frame, uint16_t number) const {
  put16(frame + kTransport, number);
}

void FrameFormat::fill(std::byte* frame, uint32_t from, uint64_t sequence) const {
  eachPart(
      static_cast<uint32_t>(stampAt() + sizeof(Stamp)), length_, from, sequence,
      [&](uint32_t at, uint64_t word, uint32_t count) { std::memcpy(frame + at, &word, count); });
}

bool FrameFormat::intact(std::span<const std::byte> part, uint32_t offset, uint32_t from,
                         uint64_t sequence) const {
  const auto content = static_cast<uint32_t>(stampAt() + sizeof(Stamp));
  bool equal = true;
  eachPart(std::max(offset, content), offset + static_cast<uint32_t>(part.size()), from, sequence,
           [&](uint32_t at, uint64_t word, uint32_t count) {
             equal = equal && std::memcmp(part.data() + (at - offset), &word, count) == 0;
           });
  return equal;
}

}  // namespace vdpa::bench
