#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "deviceplugin/datapath/switch/offload/gso_kind.h"
#include "deviceplugin/datapath/switch/offload/net_offload.h"
#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/switch/offload/packet_headers.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"

namespace vdpa::vswitch {
namespace {

using virtqueue::Frame;
using virtqueue::NetHeader;

constexpr uint32_t kIpv6Header = 40;    // bytes, without extension headers
constexpr uint32_t kMaxPacket = 65535;  // bytes from the IP header on: its length has 16 bits

// The checksum must lie in the frame, behind the Ethernet header, which the switch decides on.
bool checksumFits(const NetHeader& header, const Frame& frame) {
  const auto ethernet = ethernetLength(std::span(frame.head).first(frame.headLength()));
  return ethernet && header.checksumStart >= *ethernet &&
         uint32_t{header.checksumStart} + header.checksumOffset + 2 <= frame.length;
}

// Adds the segmentation to a request that has its checksum.
bool readSegments(const NetHeader& header, const Frame& frame, Offloads sender,
                  OffloadRequest& request) {
  // In one piece, however far the headers reach beyond the frame's head; the beginning of a frame
  // is a frame. The function is another file's, so that nothing of the sender's memory is read
  // again.
  std::array<std::byte, PacketHeaders::kMaxSize> bytes;
  Frame beginning = frame;
  beginning.length = std::min<uint32_t>(frame.length, bytes.size());
  virtqueue::copyFrame(beginning, bytes.data());
  const auto headers = findHeaders(std::span(bytes).first(beginning.length));
  if (!headers || headers->transport != header.checksumStart ||
      checksumOffsetOf(*headers) != header.checksumOffset)
    return false;
  const auto needed = needsOf(header.gsoType, *headers);
  const uint32_t packetHeaders = headers->payload - headers->network;
  if (!needed || header.gsoSize == 0 || header.gsoSize > kMaxPacket - packetHeaders ||
      frame.length - headers->network > kMaxPacket)
    return false;
  if (!covers(sender, *needed)) return false;
  const uint32_t payload = frame.length - headers->payload;
  if (payload <= header.gsoSize)
    return true;  // Linux sends such frames too: only a checksum is missing
  request.needed = *needed;
  request.extensions = headers->ipv6 && headers->transport - headers->network != kIpv6Header;
  const uint32_t segments = (payload + header.gsoSize - 1) / header.gsoSize;
  if (segments > kMaxSegments) return false;
  request.header.gsoType = header.gsoType;
  request.header.gsoSize = header.gsoSize;
  request.header.headerLength = static_cast<uint16_t>(headers->payload);
  request.segments = segments;
  request.segmentLength = headers->payload + header.gsoSize;
  request.wireBytes = frame.length + (segments - 1) * headers->payload;
  return true;
}

}  // namespace

bool readRequest(const NetHeader& header, const Frame& frame, Offloads sender,
                 OffloadRequest& request) {
  request = {};
  request.segmentLength = request.wireBytes = frame.length;
  if ((header.flags & virtqueue::net_flag::kNeedsChecksum) == 0)
    return header.gsoType == virtqueue::gso::kNone;  // 5.1.6.2.1: segments need it
  if (!checksumFits(header, frame)) return false;
  request.header.flags = virtqueue::net_flag::kNeedsChecksum;
  request.header.checksumStart = header.checksumStart;
  request.header.checksumOffset = header.checksumOffset;
  request.needed = Offloads::kChecksum;
  if (!covers(sender, request.needed)) return false;
  return header.gsoType == virtqueue::gso::kNone || readSegments(header, frame, sender, request);
}

}  // namespace vdpa::vswitch
