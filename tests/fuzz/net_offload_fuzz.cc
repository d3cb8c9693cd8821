// Fuzzes what the switch makes of a net header: the header, the frame and what both sides agreed on
// come from the input. Nothing outside the frame is touched; what is passed on points into it,
// behind its Ethernet header; what is finished has the payload of the frame, and lengths and
// checksums that a slow and separate computation finds right.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

#include "deviceplugin/datapath/switch/offload/net_offload.h"
#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/switch/offload/packet_headers.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "tests/unit/switch/packets.h"

namespace vdpa::vswitch {
namespace {

namespace gso = virtqueue::gso;
using virtqueue::NetHeader;

constexpr size_t kMaxFrame = 66000;

void require(bool condition) {
  if (!condition) std::abort();
}

struct Input {
  uint8_t sender, receiver;
  uint8_t repair;    // bits: the header matches the frame's; more payload; the sender changes it
  uint8_t change;    // where and to what
  uint16_t payload;  // bytes behind those of the input
  NetHeader header;
};

// An exact copy, so that the sanitizer sees the byte behind its end.
struct FrameBytes {
  explicit FrameBytes(size_t length) : bytes(new std::byte[length]), length(length) {}
  std::span<std::byte> all() const { return {bytes.get(), length}; }
  std::unique_ptr<std::byte[]> bytes;
  size_t length;
};

// A header that asks for what the frame could be, so that the input has to find only the rest.
void repair(NetHeader& header, std::span<const std::byte> frame) {
  const auto headers = findHeaders(frame.first(std::min(frame.size(), PacketHeaders::kMaxSize)));
  if (!headers) return;
  header.flags |= virtqueue::net_flag::kNeedsChecksum;
  header.checksumStart = static_cast<uint16_t>(headers->transport);
  header.checksumOffset = headers->tcp ? 16 : 6;
  if (header.gsoType == gso::kNone) return;
  const uint8_t ecn = headers->tcp ? header.gsoType & gso::kEcn : 0;
  header.gsoType = static_cast<uint8_t>((!headers->tcp   ? gso::kUdp
                                         : headers->ipv6 ? gso::kTcp6
                                                         : gso::kTcp4) |
                                        ecn);
}

void checkPassedOn(const OffloadRequest& request, std::span<const std::byte> frame) {
  const NetHeader& header = request.header;
  require((header.flags & ~virtqueue::net_flag::kNeedsChecksum) == 0 && header.buffers == 0);
  if (header.flags == 0) {
    require(header.checksumStart == 0 && header.checksumOffset == 0 &&
            header.gsoType == gso::kNone);
  } else {
    require(header.checksumStart >= 14);
    require(size_t{header.checksumStart} + header.checksumOffset + 2 <= frame.size());
  }
  if (header.gsoType == gso::kNone) {
    require(header.gsoSize == 0 && header.headerLength == 0);
    require(request.segmentLength == frame.size() && request.wireBytes == frame.size());
  } else {
    require(header.gsoSize > 0 && header.headerLength > header.checksumStart);
    require(request.segmentLength == uint32_t{header.headerLength} + header.gsoSize);
    require(request.segmentLength < frame.size());
  }
}

void checkWhole(const Finisher::Finished& finished, const OffloadRequest& request,
                std::span<const std::byte> frame) {
  const std::span<const std::byte> bytes(finished.frame.data, finished.frame.length);
  require(bytes.size() == frame.size());
  const size_t start = request.header.checksumStart, at = start + request.header.checksumOffset;
  const bool completed = finished.header.flags != request.header.flags;
  for (size_t i = 0; i < bytes.size(); ++i)
    require(bytes[i] == frame[i] || (completed && (i == at || i == at + 1)));
  if (!completed) return;
  const unsigned sum = ~test::slowSum(frame.subspan(start)) & 0xffff;
  require(test::field16(bytes, at) == (sum == 0 ? 0xffff : sum));
}

void checkSegments(std::span<const Finisher::Finished> finished, const OffloadRequest& request,
                   std::span<const std::byte> frame) {
  const size_t transport = request.header.checksumStart, payload = request.header.headerLength;
  const bool tcp = request.header.gsoType != gso::kUdp;
  size_t network = 14;
  while (test::field16(frame, network - 2) == 0x8100 || test::field16(frame, network - 2) == 0x88a8)
    network += 4;
  const bool ipv6 = test::field16(frame, network - 2) == 0x86dd;
  // The sum that the sender left in place of the checksum, without the length.
  std::array<std::byte, 2> length{};
  test::put16(length, 0, static_cast<unsigned>(~(frame.size() - transport) & 0xffff));
  const unsigned pseudo =
      test::slowSum(length, test::field16(frame, transport + request.header.checksumOffset));
  size_t offset = 0, wire = 0;
  for (size_t i = 0; i < finished.size(); ++i) {
    const std::span<const std::byte> bytes(finished[i].frame.data, finished[i].frame.length);
    require(bytes.size() > payload && bytes.size() <= request.segmentLength);
    require(finished[i].header.gsoType == gso::kNone);
    require(test::faultOf(bytes, frame, network, transport, payload, ipv6, tcp,
                          static_cast<unsigned>(i), offset, i + 1 == finished.size(),
                          finished[i].header.flags != 0, pseudo)
                .empty());
    offset += bytes.size() - payload;
    wire += bytes.size();
  }
  require(offset == frame.size() - payload && wire == request.wireBytes);
}

void run(std::span<const std::byte> data) {
  Input input{};
  if (data.size() <= sizeof input) return;
  std::memcpy(&input, data.data(), sizeof input);
  data = data.subspan(sizeof input);
  const size_t more = input.repair & 2 ? input.payload : 0;
  const FrameBytes frame(std::min(data.size() + more, kMaxFrame));
  for (size_t i = 0; i < frame.length; ++i)
    frame.all()[i] = i < data.size() ? data[i] : static_cast<std::byte>(i * 5);
  if (input.repair & 1) repair(input.header, frame.all());

  const auto seen = virtqueue::frameOf(frame.bytes.get(), static_cast<uint32_t>(frame.length));
  const auto sender = static_cast<Offloads>(input.sender);
  const auto receiver = static_cast<Offloads>(input.receiver);
  OffloadRequest request;
  if (!readRequest(input.header, seen, sender, request)) return;
  require(covers(sender, request.needed));
  checkPassedOn(request, frame.all());

  const bool changes = (input.repair & 4) != 0 && frame.length > virtqueue::Frame::kHeadSize;
  if (changes) {
    const size_t at =
        virtqueue::Frame::kHeadSize + input.change % (frame.length - virtqueue::Frame::kHeadSize);
    frame.all()[at] ^= static_cast<std::byte>(input.change | 1);
  }
  Finisher finisher;
  const auto finished = finisher.finish(seen, request, receiver);
  require(!finished.empty() || changes);
  if (finished.empty()) return;
  if (covers(receiver, request.needed) || request.header.gsoType == gso::kNone) {
    require(finished.size() == 1);
    checkWhole(finished[0], request, frame.all());
  } else {
    checkSegments(finished, request, frame.all());
  }
}

}  // namespace
}  // namespace vdpa::vswitch

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  vdpa::vswitch::run(std::as_bytes(std::span(data, size)));
  return 0;
}
