#include "deviceplugin/datapath/vhost_user/message_checks.h"

#include <cstddef>
#include <cstdint>

#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"

namespace vdpa::vhost_user {
namespace {

void checkLength(const Message& message, size_t expected) {
  if (message.payload.size() != expected)
    throw protocolError("{}: a payload of {} bytes; expected {}", nameOf(message.request),
                        message.payload.size(), expected);
}

void checkDescriptors(const Message& message, size_t expected) {
  if (message.descriptors.size() != expected)
    throw protocolError("{}: came with {} descriptors; expected {}", nameOf(message.request),
                        message.descriptors.size(), expected);
}

// A count of regions, then as many regions, with a descriptor for each.
void checkMemoryTable(const Message& message) {
  constexpr size_t kHeader = offsetof(WireMemoryTable, regions);
  if (message.payload.size() < kHeader) checkLength(message, kHeader);
  const auto count = message.as<uint32_t>();
  if (count == 0 || count > kMaxMemoryRegions)
    throw protocolError("{}: {} memory regions; expected 1 to {}", nameOf(message.request), count,
                        kMaxMemoryRegions);
  checkLength(message, kHeader + count * sizeof(WireRegion));
  checkDescriptors(message, count);
}

void checkRingDescriptor(const Message& message) {
  checkLength(message, sizeof(uint64_t));
  checkDescriptors(message, message.as<uint64_t>() & kVringNoDescriptor ? 0 : 1);
}

void checkConfig(const Message& message) {
  if (message.payload.size() < sizeof(ConfigHeader)) checkLength(message, sizeof(ConfigHeader));
  const auto config = message.as<ConfigHeader>();
  if (config.size > kMaxConfigSize)
    throw protocolError("{}: {} bytes of configuration; at most {} exist", nameOf(message.request),
                        config.size, kMaxConfigSize);
  checkLength(message, sizeof(ConfigHeader) + config.size);
  checkDescriptors(message, 0);
}

}  // namespace

void checkForm(const Message& message) {
  if (message.flags & kReplyFlag)
    throw protocolError("{}: marked as a reply; the front-end sends requests",
                        nameOf(message.request));
  const auto plain = [&](size_t length) {
    checkLength(message, length);
    checkDescriptors(message, 0);
  };
  switch (message.request) {
    case Request::GetFeatures:
    case Request::SetOwner:
    case Request::ResetOwner:
    case Request::GetProtocolFeatures:
    case Request::GetQueueNum:
    case Request::ResetDevice:
    case Request::GetStatus:
      return plain(0);
    case Request::SetFeatures:
    case Request::SetProtocolFeatures:
    case Request::NetSetMtu:
    case Request::SetStatus:
      return plain(sizeof(uint64_t));
    case Request::SetVringNum:
    case Request::SetVringBase:
    case Request::GetVringBase:
    case Request::SetVringEnable:
      return plain(sizeof(VringState));
    case Request::SetVringAddr:
      return plain(sizeof(VringAddresses));
    case Request::SetMemTable:
      return checkMemoryTable(message);
    case Request::SetVringKick:
    case Request::SetVringCall:
    case Request::SetVringErr:
      return checkRingDescriptor(message);
    case Request::SetBackendReqFd:
      checkLength(message, 0);
      return checkDescriptors(message, 1);
    case Request::GetConfig:
    case Request::SetConfig:
      return checkConfig(message);
  }
  throw protocolError("{}: not a request this back-end offers", nameOf(message.request));
}

}  // namespace vdpa::vhost_user
