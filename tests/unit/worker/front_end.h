// Helpers for tests and the fuzzer to act as a front-end: messages, memory and eventfds.
#pragma once

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <span>
#include <vector>

#include "deviceplugin/datapath/vhost_user/session.h"

namespace vdpa::vhost_user::test {

inline UniqueFd memoryFile(size_t size, const char* name = "memory") {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC));
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) < 0) throw std::runtime_error("ftruncate");
  return fd;
}

inline UniqueFd eventFd() {
  return UniqueFd(::eventfd(0, EFD_CLOEXEC));
}

inline size_t openDescriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

inline std::vector<std::byte> bytesOf(const void* data, size_t size) {
  const auto* first = static_cast<const std::byte*>(data);
  return {first, first + size};
}

template <typename T>
std::vector<std::byte> bytesOf(const T& value) {
  return bytesOf(&value, sizeof value);
}

inline Message empty(Request request, uint32_t flags = kVersion) {
  Message message;
  message.request = request;
  message.flags = flags;
  return message;
}

template <typename T>
Message with(Request request, const T& payload, uint32_t flags = kVersion) {
  Message message = empty(request, flags);
  message.payload = bytesOf(payload);
  return message;
}

inline Message with(Request request, uint64_t payload, UniqueFd descriptor) {
  Message message = with(request, payload);
  message.descriptors.push_back(std::move(descriptor));
  return message;
}

// One region of `size` bytes at user and guest address `address`.
inline Message memoryTable(UniqueFd file, uint64_t size, uint64_t address = 0x10000,
                           uint64_t fileOffset = 0) {
  struct {
    uint32_t count, padding;
    WireRegion region;
  } table{1, 0, {address, size, address, fileOffset}};
  Message message = with(Request::SetMemTable, table);
  message.descriptors.push_back(std::move(file));
  return message;
}

inline Message state(Request request, uint32_t index, uint32_t value) {
  return with(request, VringState{index, value});
}

// Ring `index` at 0x10000 + index * 0x4000, with room for 256 entries of either kind.
inline Message addresses(uint32_t index) {
  const uint64_t base = 0x10000 + uint64_t{index} * 0x4000;
  return with(Request::SetVringAddr,
              VringAddresses{index, 0, base, base + 0x2000, base + 0x1000, 0});
}

inline OfferedFeatures offered(uint32_t queuePairs = 1, uint32_t queueSize = 256) {
  OfferedFeatures offered;
  offered.features = feature::kProtocolFeatures | feature::kVersion1 | feature::kPackedRing |
                     feature::kEventIndex | feature::kMultiqueue;
  offered.protocolFeatures = protocol_feature::kMultiqueue | protocol_feature::kReplyAck |
                             protocol_feature::kMtu | protocol_feature::kConfig |
                             protocol_feature::kBackendRequests | protocol_feature::kResetDevice |
                             protocol_feature::kStatus;
  offered.queuePairs = queuePairs;
  offered.queueSize = queueSize;
  offered.config.mac = MacAddress({2, 0, 0, 0, 0, 7});
  offered.config.maxQueuePairs = static_cast<uint16_t>(queuePairs);
  offered.config.mtu = 1400;
  return offered;
}

// A front-end that has negotiated and set up everything but started no ring.
inline void setUp(Session& session, uint64_t features = feature::kVersion1,
                  uint64_t protocolFeatures = protocol_feature::kReplyAck) {
  session.handle(empty(Request::SetOwner));
  session.handle(with(Request::SetProtocolFeatures, protocolFeatures));
  session.handle(with(Request::SetFeatures, features | feature::kProtocolFeatures));
  session.handle(memoryTable(memoryFile(0x10000), 0x10000));
  for (uint32_t i = 0; i < session.device().rings.size(); ++i) {
    session.handle(state(Request::SetVringNum, i, 256));
    session.handle(state(Request::SetVringBase, i, (features & feature::kPackedRing) ? 0x8000 : 0));
    session.handle(addresses(i));
    session.handle(with(Request::SetVringCall, i, eventFd()));
  }
}

inline void startRing(Session& session, uint32_t index) {
  session.handle(with(Request::SetVringKick, index, eventFd()));
  session.handle(state(Request::SetVringEnable, index, 1));
}

// The payload of the reply to the message handled last, as T.
template <typename T>
T replyTo(Session& session) {
  const auto reply = session.takeReply();
  if (!reply) throw std::runtime_error("no reply");
  if (reply->size() != sizeof(MessageHeader) + sizeof(T)) throw std::runtime_error("reply size");
  T value;
  std::memcpy(&value, reply->data() + sizeof(MessageHeader), sizeof value);
  return value;
}

}  // namespace vdpa::vhost_user::test
