// Cuts a byte stream with descriptors into vhost-user messages. No I/O: the caller asks how many
// bytes are missing, reads at most that many, and passes them in.
#pragma once

#include <optional>
#include <span>

#include "deviceplugin/datapath/vhost_user/message.h"

namespace vdpa::vhost_user {

class MessageReader {
 public:
  // Bytes up to the end of the header, or of the payload, that is being read; never 0. Reading no
  // more than this ties descriptors to their message: the kernel delivers them with the first byte
  // they were sent with.
  size_t missing() const;

  // Takes what one read returned. Returns the message once it is complete. Throws ProtocolError for
  // an invalid header or too many descriptors; the stream is then unusable, and the descriptors are
  // closed with this: it can take long.
  std::optional<Message> add(std::span<const std::byte> bytes, std::vector<UniqueFd> descriptors);

 private:
  void startPayload();

  std::vector<std::byte> bytes_;  // of the header until it is complete, then of the payload
  std::optional<uint32_t> payloadSize_;
  Message message_;
};

}  // namespace vdpa::vhost_user
