#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "deviceplugin/datapath/switch/offload/checksum.h"
#include "deviceplugin/datapath/switch/offload/gso_kind.h"
#include "deviceplugin/datapath/switch/offload/net_offload.h"
#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/switch/offload/packet_headers.h"
#include "deviceplugin/datapath/switch/offload/wire_fields.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"

namespace vdpa::vswitch {
namespace {

using virtqueue::NetHeader;

constexpr uint8_t kFin = 1, kPush = 8, kCwr = 0x80;  // TCP's flags (RFC 9293; CWR: RFC 3168)

// Of the segments that one frame is cut into. `number` counts from 0.
struct Segment {
  uint32_t number;
  uint32_t offset;  // of its payload in the frame's
  bool last;
};

void setIpv4(std::byte* ip, uint32_t headerLength, uint32_t packetLength, uint32_t number) {
  setWord(ip + 2, packetLength);
  setWord(ip + 4, wordAt(ip + 4) + number);  // the identification
  setSum(ip + 10, 0);
  setSum(ip + 10, static_cast<uint16_t>(~fold(sumOf({ip, headerLength}))));
}

void setTcp(std::byte* tcp, const Segment& segment) {
  setLong(tcp + 4, longAt(tcp + 4) + segment.offset);  // the sequence number
  uint8_t flags = byteAt(tcp + 13);
  if (!segment.last) flags &= static_cast<uint8_t>(~(kFin | kPush));
  if (segment.number > 0) flags &= static_cast<uint8_t>(~kCwr);
  tcp[13] = static_cast<std::byte>(flags);
}

// Of a segment whose headers are still those of the whole frame.
void setHeaders(std::span<std::byte> bytes, const PacketHeaders& headers, const Segment& segment) {
  const auto packet = static_cast<uint32_t>(bytes.size()) - headers.network;
  const auto datagram = static_cast<uint32_t>(bytes.size()) - headers.transport;
  std::byte* const ip = bytes.data() + headers.network;
  if (headers.ipv6)
    setWord(ip + 4, packet - 40);  // the payload's length, extension headers included (RFC 8200)
  else
    setIpv4(ip, headers.transport - headers.network, packet, segment.number);
  if (headers.tcp)
    setTcp(bytes.data() + headers.transport, segment);
  else
    setWord(bytes.data() + headers.transport + 4, datagram);
}

// Everything from `start` on is added to the pseudo header's sum, which is in place.
void completeChecksum(std::span<std::byte> bytes, uint32_t start, uint32_t offset) {
  const Sum sum = sumOf(bytes.subspan(start));
  setSum(bytes.data() + start + offset, transportChecksum(sum));
}

}  // namespace

std::span<const Finisher::Finished> Finisher::finish(const virtqueue::Frame& frame,
                                                     const OffloadRequest& request,
                                                     Offloads receiver) {
  copy_.resize(frame.length);
  virtqueue::copyFrame(frame, copy_.data());
  finished_.clear();
  NetHeader header = request.header;
  if (!covers(receiver, request.needed)) {
    if (header.gsoType != virtqueue::gso::kNone) return cut(request, receiver);
    completeChecksum(copy_, header.checksumStart, header.checksumOffset);
    header = {};
  }
  finished_.push_back({virtqueue::frameOf(copy_.data(), frame.length), header});
  return finished_;
}

std::span<const Finisher::Finished> Finisher::cut(const OffloadRequest& request,
                                                  Offloads receiver) {
  const NetHeader& asked = request.header;
  const std::span<const std::byte> whole = copy_;
  // The bytes behind the frame's head may have changed since readRequest(): the copy is checked
  // again, and must give the same number of segments.
  const auto headers = findHeaders(whole.first(std::min(whole.size(), PacketHeaders::kMaxSize)));
  if (!headers || headers->payload != asked.headerLength ||
      headers->transport != asked.checksumStart ||
      needsOf(asked.gsoType, *headers) != request.needed)
    return {};

  const bool leaveChecksum = covers(receiver, Offloads::kChecksum);
  NetHeader header;
  if (leaveChecksum) {
    header.flags = virtqueue::net_flag::kNeedsChecksum;
    header.checksumStart = asked.checksumStart;
    header.checksumOffset = asked.checksumOffset;
  }
  const uint32_t checksumAt = asked.checksumStart + asked.checksumOffset;
  const auto datagram = static_cast<uint32_t>(whole.size()) - headers->transport;
  // The pseudo header's sum, as the sender left it there, without the length that is part of it.
  // Taken from there and not from the addresses: of an IPv6 packet with a routing header the last
  // one counts (RFC 8200, 8.1), and the sender knows it.
  const Sum pseudo = without(sumAt(whole.data() + checksumAt), asSum(datagram));

  memory_.resize(request.wireBytes);
  std::byte* at = memory_.data();
  const auto payload = whole.subspan(headers->payload);
  for (Segment segment{0, 0, false}; segment.offset < payload.size();
       ++segment.number, segment.offset += asked.gsoSize) {
    const size_t length = std::min<size_t>(payload.size() - segment.offset, asked.gsoSize);
    segment.last = segment.offset + length == payload.size();
    const std::span<std::byte> bytes(at, headers->payload + length);
    std::memcpy(at, whole.data(), headers->payload);
    std::memcpy(at + headers->payload, payload.data() + segment.offset, length);
    setHeaders(bytes, *headers, segment);
    const auto segmentDatagram = static_cast<uint32_t>(bytes.size()) - headers->transport;
    setSum(at + checksumAt, fold(pseudo + asSum(segmentDatagram)));
    if (!leaveChecksum) completeChecksum(bytes, asked.checksumStart, asked.checksumOffset);
    finished_.push_back({virtqueue::frameOf(at, static_cast<uint32_t>(bytes.size())), header});
    at += bytes.size();
  }
  return finished_;
}

}  // namespace vdpa::vswitch
