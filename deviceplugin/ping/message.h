// The frames of vdpa-ping: an Ethernet header, a message, and zeros up to the frame's length. The
// EtherType is one that IEEE 802 (clause 9.2.4) leaves to local experiments, so that no other
// program takes them for its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "common/mac_address.h"

namespace vdpa::ping {

enum class Kind : uint8_t {
  kEchoRequest = 1,  // answered by kEchoReply with the same numbers
  kEchoReply = 2,
  kData = 3,          // counted by the receiver
  kCountRequest = 4,  // answered by kCountReply
  kCountReply = 5,  // number: kData frames of this run received so far; time: the receiver's clock
};

struct Message {
  Kind kind = Kind::kEchoRequest;
  uint64_t run = 0;  // random: frames of an earlier measurement are not taken for those of this one
  uint64_t number = 0;
  uint64_t time = 0;  // ns of the clock of the program that wrote it first
};

struct ReceivedMessage {
  MacAddress to, from;
  Message message;
};

inline constexpr MacAddress kBroadcast({0xff, 0xff, 0xff, 0xff, 0xff, 0xff});

// Bytes, without the FCS. Every frame is at least as long as the shortest.
inline constexpr uint32_t kShortestFrame = 60, kFcs = 4, kEthernetHeader = 14, kVlanTag = 4;

// Writes the beginning of a frame. The rest of its shortest length and beyond is left as it is:
// zeros, in buffers that nothing else has been written to.
void writeMessage(std::byte* frame, MacAddress to, MacAddress from, const Message& message);
// Nothing if it is a frame of another program.
std::optional<ReceivedMessage> readMessage(std::span<const std::byte> frame);

}  // namespace vdpa::ping
