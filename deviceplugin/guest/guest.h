// A guest: one queue pair on one vhost-user connection, with a driver that polls, or sleeps until
// frames come.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/guest/driver_ring.h"
#include "deviceplugin/guest/front_end.h"
#include "deviceplugin/guest/shared_memory.h"

namespace vdpa::guest {

struct GuestOptions {
  uint64_t features = 0;  // wanted
  bool packed = false;    // demanded
  uint32_t ringSize = 256;
  uint32_t receiveRing = 0;       // 0: as large
  uint32_t transmitBytes = 2048;  // of a frame, without the header
  uint32_t receiveBytes = 2048;   // of a buffer, with the header
  // More than one descriptor for each frame to send, the header in the first.
  uint32_t pieces = 1;
  bool indirect = false;
  bool calls = false;  // ask for notifications from the beginning
};

// A received frame. Valid during the call that hands it over.
struct Received {
  const virtqueue::NetHeader* header;
  std::span<const std::byte> start;  // the part in the first buffer
  uint32_t length;                   // of the frame, in bytes
  // All parts, if the frame is in several buffers.
  std::span<const std::span<const std::byte>> parts;
};

// Shared by guests that only receive, and whose frames are not read: thousands of them take little
// memory, and one descriptor each. Must outlive them.
class CommonParts {
 public:
  CommonParts(SharedMemory& memory, const GuestOptions& options);
  std::byte* buffers() const { return buffers_; }
  int eventFd() const { return eventFd_.get(); }

 private:
  std::byte* buffers_;
  UniqueFd eventFd_;
};

// For one thread. Throws std::runtime_error if the device breaks virtio's rules.
class Guest {
 public:
  // Connects and starts the rings. Has buffers and eventfds of its own unless `common` has them.
  Guest(SharedMemory& memory, const std::string& socket, const GuestOptions& options,
        const CommonParts* common = nullptr);

  static size_t memoryFor(const GuestOptions& options);
  static size_t buffersFor(const GuestOptions& options);

  uint64_t features() const { return features_; }
  FrontEnd& frontEnd() { return frontEnd_; }
  // An eventfd that becomes readable when frames have come, while notifications are asked for.
  int receiveCall() const { return receiveCall_; }
  // To be followed by receive() before a sleep: frames may have come meanwhile.
  void setReceiveCalls(bool on) { receive_.setCalls(on); }

  // Where the frame in each transmit buffer begins, to prepare them; the header precedes it. There
  // is one piece.
  uint32_t transmitBuffers() const { return transmit_.buffers(); }
  std::byte* transmitFrame(uint32_t buffer) const;
  // The memory of all buffers, of both directions.
  std::span<std::byte> buffers() const { return {receiveBuffers_, buffersFor(options_)}; }

  // Sends at most `count` frames, fewer if the ring is full (or its list of buffers starts over);
  // returns how many. A buffer is as earlier frames left it: `fill` takes the place of the frame,
  // preceded by its header, and returns its length.
  template <typename Fill>
  size_t send(size_t count, Fill&& fill) {
    reclaim();
    count = std::min({count, freeCount_, free_.size() - firstFree_});
    if (count == 0) return 0;
    pieces_.clear();
    const auto buffers = std::span(free_).subspan(firstFree_, count);
    for (const uint32_t buffer : buffers) {
      std::byte* frame = transmitFrame(buffer);
      describe(frame, fill(frame));
    }
    transmit_.add(buffers, pieces_);
    firstFree_ = firstFree_ + count == free_.size() ? 0 : firstFree_ + count;
    freeCount_ -= count;
    sent += count;
    if (transmit_.wantsKick()) notify();
    return count;
  }

  // Hands over all frames that have come, and makes their buffers available; returns how many.
  template <typename Take>
  size_t receive(Take&& take) {
    const auto used = receive_.take();
    if (used.empty()) return 0;
    for (const auto& element : used) __builtin_prefetch(receiveBuffer(element.buffer) + kHeader);
    size_t frames = 0;
    for (const auto& element : used)
      if (collect(element)) {
        take(received_);
        ++frames;
      }
    refill(used);
    received += frames;
    return frames;
  }

  // Makes all used buffers of both rings available, whatever is in them.
  void discard();
  void notify();  // a kick, whether or not it was asked for

  uint64_t sent = 0, received = 0;  // frames

 private:
  static constexpr uint32_t kHeader = virtqueue::kHeaderSize;

  std::byte* receiveBuffer(uint32_t buffer) const;
  int eventFd(const CommonParts* common);
  void reclaim();
  void describe(std::byte* frame, uint32_t length);
  // Adds a buffer to the frame that is being received; whether that is complete.
  bool collect(const DriverRing::Used& element);
  void refill(std::span<const DriverRing::Used> used);

  const GuestOptions options_;
  FrontEnd frontEnd_;
  const uint64_t features_;
  DriverRing receive_, transmit_;
  std::byte *receiveBuffers_, *transmitBuffers_;
  std::vector<UniqueFd> eventFds_;
  int receiveKick_, receiveCall_, transmitKick_, transmitCall_;
  // Transmit buffers that are free, in a circle, the oldest first.
  std::vector<uint32_t> free_;
  size_t firstFree_ = 0, freeCount_ = 0;
  std::vector<uint32_t> refilled_;
  std::vector<Piece> pieces_;
  Received received_{};
  std::vector<std::span<const std::byte>> parts_;
  uint32_t missing_ = 0;  // buffers of the frame that is being received
};

}  // namespace vdpa::guest
