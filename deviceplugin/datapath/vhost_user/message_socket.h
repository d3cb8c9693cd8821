// A non-blocking unix socket that carries vhost-user messages: used towards the pod and towards the
// engine.
#pragma once

#include <deque>
#include <optional>

#include "deviceplugin/datapath/vhost_user/message_reader.h"

namespace vdpa::vhost_user {

class MessageSocket {
 public:
  // Takes a connected, non-blocking socket.
  explicit MessageSocket(UniqueFd socket) : socket_(std::move(socket)) {}

  int fd() const { return socket_.get(); }

  // The next complete message, or nothing until more arrives; then ended() says whether more can.
  // Throws ProtocolError for anything but vhost-user.
  std::optional<Message> receive();
  bool ended() const { return ended_; }
  // Whether the other side has closed its end; what it sent before can still be received.
  bool hungUp() const;

  // Sends as much as the other side takes now and keeps the rest for flush(). False: the other side
  // is gone, or has left more than kMaxPending bytes unread.
  bool send(std::vector<std::byte> bytes, std::vector<SharedFd> descriptors = {});
  bool flush();
  bool blocked() const { return !pending_.empty(); }

 private:
  static constexpr size_t kMaxPending = 256 * 1024;

  struct Outgoing {
    std::vector<std::byte> bytes;
    size_t sent = 0;
    std::vector<SharedFd> descriptors;  // go with the first byte
  };
  std::optional<size_t> sendSome(const Outgoing& outgoing);

  UniqueFd socket_;
  MessageReader reader_;
  bool ended_ = false;
  std::deque<Outgoing> pending_;
  size_t pendingBytes_ = 0;
};

}  // namespace vdpa::vhost_user
