// One end of a control connection: whole messages in and out of a non-blocking unix stream socket.
//
// A message is a frame or a line, by its first byte, which in a frame is 0:
//
//   frame   length (4 bytes, big endian, below 16 MiB), number of descriptors (1 byte), then a
//           vdpa.control.Request or FromProcess (common/proto/control.proto) of that length
//   line    a JSON object and a newline, as all releases from 0.1.0 understand them
//
// Descriptors are sent with the first byte of their frame (SCM_RIGHTS, unix(7)). Each end checks
// the size and the syntax of the other's messages, and no more: both are root's.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/unique_fd.h"
#include "control.pb.h"

namespace vdpa {

// The descriptors of one message, on either side. It owns them; those that nobody takes are closed.
class Descriptors {
 public:
  static constexpr size_t kMax = 16;  // of one message

  // For a message that is to be sent: the result goes into the message's field. Throws
  // std::length_error if there are kMax already.
  control::Descriptor add(UniqueFd descriptor);
  // Of a message that was received: the one that the message's field names. It is close-on-exec.
  // Throws std::runtime_error if it did not come with the message, or was taken already.
  UniqueFd take(const control::Descriptor& field);

  size_t size() const { return all_.size(); }
  bool empty() const { return all_.empty(); }

 private:
  friend class ControlStream;
  std::vector<UniqueFd> all_;
};

class ControlStream {
 public:
  enum class Format { line, frame };
  struct Message {
    Format format;
    std::string bytes;  // without the frame's header or the newline
    Descriptors descriptors;
  };
  static constexpr size_t kMaxMessage = 8 << 20;  // bytes
  static constexpr size_t kMaxUnsent = 8 << 20;   // bytes that wait for the other side to read

  // `maxMessage`: bytes of a message that the other side may send, at most kMaxMessage.
  ControlStream(UniqueFd socket, size_t maxMessage);

  int fd() const { return socket_.get(); }

  // Sends what the socket has room for, and keeps the rest for flush(). Throws std::runtime_error
  // if the message is larger than kMaxMessage, or more than kMaxUnsent bytes wait; nothing of it is
  // sent then. A line can't have descriptors: std::logic_error.
  void send(Message message);
  // True once all is sent. What the socket refuses because the other side is gone is dropped:
  // receive() finds the end, after the messages before it. Throws std::system_error for another
  // failure, and ends the connection: a part of a message may have been sent.
  bool flush();
  bool sent() const { return unsent_.empty(); }

  // Reads all that has arrived, and calls `onMessage` with each message, which must not destroy the
  // stream. False: the other side is gone. Throws std::runtime_error if it breaks a bound above, or
  // sends a frame without its descriptors: the connection can't be used any more. Surplus
  // descriptors are closed.
  bool receive(const std::function<void(Message message)>& onMessage);

 private:
  struct Unsent {
    std::string bytes;
    Descriptors descriptors;  // sent with the first byte
  };
  ssize_t sendSome(const Unsent& part);
  size_t wanted() const;
  ssize_t receiveSome();
  void checkSize(size_t size) const;
  std::optional<Message> next();
  std::optional<Message> nextLine();
  std::optional<Message> nextFrame();

  UniqueFd socket_;
  const size_t maxMessage_;
  std::string input_;
  std::vector<UniqueFd> received_;  // for the frame in input_
  std::deque<Unsent> unsent_;
  size_t unsentBytes_ = 0;
};

}  // namespace vdpa
