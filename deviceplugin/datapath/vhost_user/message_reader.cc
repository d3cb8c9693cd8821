#include "deviceplugin/datapath/vhost_user/message_reader.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"

namespace vdpa::vhost_user {

std::vector<std::byte> encode(Request request, uint32_t flags, const void* payload, size_t size) {
  const MessageHeader header{static_cast<uint32_t>(request), flags, static_cast<uint32_t>(size)};
  std::vector<std::byte> bytes(sizeof header + size);
  std::memcpy(bytes.data(), &header, sizeof header);
  if (size > 0) std::memcpy(bytes.data() + sizeof header, payload, size);
  return bytes;
}

size_t MessageReader::missing() const {
  return payloadSize_.value_or(sizeof(MessageHeader)) - bytes_.size();
}

std::optional<Message> MessageReader::add(std::span<const std::byte> bytes,
                                          std::vector<UniqueFd> descriptors) {
  std::move(descriptors.begin(), descriptors.end(), std::back_inserter(message_.descriptors));
  if (message_.descriptors.size() > kMaxDescriptors)
    throw protocolError("a message came with more than {} descriptors", kMaxDescriptors);
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  if (!payloadSize_ && bytes_.size() == sizeof(MessageHeader)) startPayload();
  if (!payloadSize_ || bytes_.size() < *payloadSize_) return std::nullopt;

  message_.payload = std::exchange(bytes_, {});
  payloadSize_.reset();
  return std::exchange(message_, {});
}

void MessageReader::startPayload() {
  MessageHeader header;
  std::memcpy(&header, bytes_.data(), sizeof header);
  message_.request = static_cast<Request>(header.request);
  message_.flags = header.flags;
  if (header.size > kMaxPayload)
    throw protocolError("{}: announces a payload of {} bytes; no message has more than {}",
                        nameOf(message_.request), header.size, kMaxPayload);
  if ((header.flags & kVersionMask) != kVersion)
    throw protocolError("{}: version {} of the protocol; there is only version {}",
                        nameOf(message_.request), header.flags & kVersionMask, kVersion);
  payloadSize_ = header.size;
  bytes_.clear();
}

}  // namespace vdpa::vhost_user
