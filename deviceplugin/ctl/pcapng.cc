#include "deviceplugin/ctl/pcapng.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace vdpa::ctl {
namespace {

// Block types, section 11.1 and those of chapter 4.
constexpr uint32_t kSectionHeader = 0x0a0d0d0a;
constexpr uint32_t kInterfaceDescription = 1;
constexpr uint32_t kInterfaceStatistics = 5;
constexpr uint32_t kEnhancedPacket = 6;

// Options: 3.5, 4.1, 4.2, 4.3 and 4.6.
constexpr uint16_t kEndOfOptions = 0;
constexpr uint16_t kComment = 1;
constexpr uint16_t kApplication = 4;     // shb_userappl
constexpr uint16_t kName = 2;            // if_name
constexpr uint16_t kDescription = 3;     // if_description
constexpr uint16_t kTimeResolution = 9;  // if_tsresol
constexpr uint16_t kFlags = 2;           // epb_flags
constexpr uint16_t kReceived = 4;        // isb_ifrecv
constexpr uint16_t kDropped = 5;         // isb_ifdrop

constexpr uint32_t kByteOrder = 0x1a2b3c4d;
constexpr uint16_t kEthernet = 1;                // LINKTYPE_ETHERNET
constexpr uint8_t kNanoseconds = 9;              // 10^-9 s
constexpr uint32_t kInbound = 1, kOutbound = 2;  // 4.3.1
constexpr size_t kMaxOption = 65535;             // bytes

}  // namespace

template <typename T>
void Pcapng::add(T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// To 32 bits, as all of a block is.
void Pcapng::addPadded(const void* data, size_t size) {
  bytes.append(static_cast<const char*>(data), size);
  bytes.append(-size % 4, '\0');
}

// 3.1: the type and the length, which also follows the body.
size_t Pcapng::begin(uint32_t type) {
  const size_t begun = bytes.size();
  add(type);
  add(uint32_t{0});
  return begun;
}

void Pcapng::end(size_t begun) {
  const auto length = static_cast<uint32_t>(bytes.size() - begun + sizeof(uint32_t));
  add(length);
  std::memcpy(bytes.data() + begun + sizeof(uint32_t), &length, sizeof length);
}

void Pcapng::option(uint16_t code, const void* value, size_t size) {
  add(code);
  add(static_cast<uint16_t>(size));
  addPadded(value, size);
}

void Pcapng::time(uint64_t time) {
  add(static_cast<uint32_t>(time >> 32));
  add(static_cast<uint32_t>(time));
}

void Pcapng::section(std::string_view application) {
  const size_t block = begin(kSectionHeader);
  add(kByteOrder);
  add(uint16_t{1});  // version 1.0
  add(uint16_t{0});
  add(int64_t{-1});  // bytes of the section: not known
  option(kApplication, application.substr(0, kMaxOption));
  option(kEndOfOptions, {});
  end(block);
}

void Pcapng::interface(std::string_view name, std::string_view description, uint32_t snapLength) {
  const size_t block = begin(kInterfaceDescription);
  add(kEthernet);
  add(uint16_t{0});  // reserved
  add(snapLength);
  option(kName, name.substr(0, kMaxOption));
  option(kDescription, description.substr(0, kMaxOption));
  option(kTimeResolution, &kNanoseconds, sizeof kNanoseconds);
  option(kEndOfOptions, {});
  end(block);
}

void Pcapng::frame(const Frame& frame) {
  const size_t block = begin(kEnhancedPacket);
  add(uint32_t{0});  // the interface
  time(frame.time);
  add(static_cast<uint32_t>(frame.data.size()));
  add(frame.length);
  addPadded(frame.data.data(), frame.data.size());
  const uint32_t flags = frame.inbound ? kInbound : kOutbound;
  option(kFlags, &flags, sizeof flags);
  if (!frame.comment.empty()) option(kComment, frame.comment.substr(0, kMaxOption));
  option(kEndOfOptions, {});
  end(block);
}

void Pcapng::statistics(uint64_t time, uint64_t received, uint64_t dropped) {
  const size_t block = begin(kInterfaceStatistics);
  add(uint32_t{0});  // the interface
  this->time(time);
  option(kReceived, &received, sizeof received);
  option(kDropped, &dropped, sizeof dropped);
  option(kEndOfOptions, {});
  end(block);
}

}  // namespace vdpa::ctl
