#include "deviceplugin/ping/message.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "common/mac_address.h"

namespace vdpa::ping {
namespace {

// As it is on the wire, from the frame's first byte on; numbers are little-endian, but for the
// EtherType.
struct [[gnu::packed]] Wire {
  MacAddress::Bytes to, from;
  uint8_t etherType[2];
  uint8_t magic[4];
  uint8_t version;
  uint8_t kind;
  uint8_t unused[2];
  uint64_t run, number, time;
};
static_assert(sizeof(Wire) <= kShortestFrame);
static_assert(offsetof(Wire, etherType) + 2 == kEthernetHeader);

constexpr uint8_t kEtherType[2] = {0x88, 0xb5};
constexpr uint8_t kMagic[4] = {'v', 'D', 'P', 'A'};
constexpr uint8_t kVersion = 1;

}  // namespace

void writeMessage(std::byte* frame, MacAddress to, MacAddress from, const Message& message) {
  Wire wire{};
  wire.to = to.bytes();
  wire.from = from.bytes();
  std::memcpy(wire.etherType, kEtherType, sizeof kEtherType);
  std::memcpy(wire.magic, kMagic, sizeof kMagic);
  wire.version = kVersion;
  wire.kind = static_cast<uint8_t>(message.kind);
  wire.run = message.run;
  wire.number = message.number;
  wire.time = message.time;
  std::memcpy(frame, &wire, sizeof wire);
}

std::optional<ReceivedMessage> readMessage(std::span<const std::byte> frame) {
  Wire wire;
  if (frame.size() < sizeof wire) return std::nullopt;
  std::memcpy(&wire, frame.data(), sizeof wire);
  if (std::memcmp(wire.etherType, kEtherType, sizeof kEtherType) != 0 ||
      std::memcmp(wire.magic, kMagic, sizeof kMagic) != 0 || wire.version != kVersion)
    return std::nullopt;
  return ReceivedMessage{MacAddress(wire.to),
                         MacAddress(wire.from),
                         {static_cast<Kind>(wire.kind), wire.run, wire.number, wire.time}};
}

}  // namespace vdpa::ping
