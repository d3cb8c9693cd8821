#include "deviceplugin/guest/guest.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>

#include "common/errors.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/ring_layout.h"
#include "deviceplugin/guest/driver_ring.h"
#include "deviceplugin/guest/front_end.h"
#include "deviceplugin/guest/shared_memory.h"

namespace vdpa::guest {
namespace {

using virtqueue::Direction;
using virtqueue::Format;
namespace feature = vhost_user::feature;

constexpr uint64_t kInOrder = vhost_user::bit(35);  // virtio 1.2, 6
// A buffer begins where the frame after its header is at the start of a cache line.
constexpr size_t kLine = 64, kLead = kLine - virtqueue::kHeaderSize;
constexpr uint32_t kReceive = 0, kTransmit = 1;  // the pair's rings

size_t stride(size_t bytes) {
  return (kLead + bytes + kLine - 1) / kLine * kLine + kLine;  // an odd number of lines is likelier
}

UniqueFd newEventFd() {
  return UniqueFd(checked(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "cannot make an eventfd"));
}

RingOptions ringOptions(const GuestOptions& options, Direction direction, uint64_t features) {
  RingOptions ring;
  ring.format = options.packed ? Format::kPacked : Format::kSplit;
  ring.size = options.ringSize;
  if (direction == Direction::kTransmit) {
    ring.pieces = options.pieces;
    ring.indirect = options.indirect;
  } else if (options.receiveRing != 0) {
    ring.size = options.receiveRing;
  }
  ring.eventIndex = features & feature::kEventIndex;
  ring.inOrder = features & kInOrder;
  ring.calls = options.calls;
  return ring;
}

size_t receiveBytes(const GuestOptions& options) {
  return stride(options.receiveBytes) * std::max(options.ringSize, options.receiveRing);
}

size_t transmitBytes(const GuestOptions& options) {
  return stride(virtqueue::kHeaderSize + options.transmitBytes) * options.ringSize;
}

uint64_t negotiated(FrontEnd& frontEnd, const GuestOptions& options) {
  uint64_t wanted = options.features;
  if (options.packed) wanted |= feature::kPackedRing;
  if (options.indirect) wanted |= feature::kIndirectDescriptors;
  const uint64_t agreed = frontEnd.negotiate(wanted);
  if (options.packed && !(agreed & feature::kPackedRing))
    throw std::runtime_error("the device does not offer packed rings");
  if (options.indirect && !(agreed & feature::kIndirectDescriptors))
    throw std::runtime_error("the device does not offer indirect descriptors");
  return agreed;
}

}  // namespace

CommonParts::CommonParts(SharedMemory& memory, const GuestOptions& options)
    : buffers_(memory.allocate(Guest::buffersFor(options), kLine)), eventFd_(newEventFd()) {}

size_t Guest::buffersFor(const GuestOptions& options) {
  return receiveBytes(options) + transmitBytes(options);
}

size_t Guest::memoryFor(const GuestOptions& options) {
  return DriverRing::memoryFor(ringOptions(options, Direction::kReceive, 0)) +
         DriverRing::memoryFor(ringOptions(options, Direction::kTransmit, 0));
}

Guest::Guest(SharedMemory& memory, const std::string& socket, const GuestOptions& options,
             const CommonParts* common)
    : options_(options),
      frontEnd_(socket),
      features_(negotiated(frontEnd_, options)),
      receive_(memory, Direction::kReceive, ringOptions(options, Direction::kReceive, features_)),
      transmit_(memory, Direction::kTransmit,
                ringOptions(options, Direction::kTransmit, features_)),
      receiveBuffers_(common ? common->buffers() : memory.allocate(buffersFor(options), kLine)),
      transmitBuffers_(receiveBuffers_ + receiveBytes(options)),
      receiveKick_(eventFd(common)),
      receiveCall_(eventFd(common)),
      transmitKick_(eventFd(common)),
      transmitCall_(eventFd(common)) {
  for (uint32_t i = 0; i < transmit_.buffers(); ++i) free_.push_back(i);
  freeCount_ = free_.size();
  for (uint32_t i = 0; i < receive_.buffers(); ++i) {
    refilled_.push_back(i);
    pieces_.push_back({receiveBuffer(i), options_.receiveBytes});
  }
  receive_.add(refilled_, pieces_);
  frontEnd_.share(memory);
  frontEnd_.start(kReceive, receive_.size(), receive_.addresses(), options.packed, receiveKick_,
                  receiveCall_);
  frontEnd_.start(kTransmit, transmit_.size(), transmit_.addresses(), options.packed, transmitKick_,
                  transmitCall_);
  frontEnd_.enable(kReceive, true);
  frontEnd_.enable(kTransmit, true);
  frontEnd_.synchronize();
}

int Guest::eventFd(const CommonParts* common) {
  if (common) return common->eventFd();
  return eventFds_.emplace_back(newEventFd()).get();
}

std::byte* Guest::transmitFrame(uint32_t buffer) const {
  return transmitBuffers_ + stride(kHeader + options_.transmitBytes) * buffer + kLead + kHeader;
}

std::byte* Guest::receiveBuffer(uint32_t buffer) const {
  return receiveBuffers_ + stride(options_.receiveBytes) * buffer + kLead;
}

void Guest::reclaim() {
  for (const auto& element : transmit_.take()) {
    const size_t last = firstFree_ + freeCount_++;
    free_[last < free_.size() ? last : last - free_.size()] = element.buffer;
  }
}

void Guest::describe(std::byte* frame, uint32_t length) {
  std::byte* header = frame - kHeader;
  if (options_.pieces == 1) {
    pieces_.push_back({header, kHeader + length});
    return;
  }
  pieces_.push_back({header, kHeader});
  const uint32_t parts = options_.pieces - 1, each = length / parts;
  for (uint32_t i = 0; i < parts; ++i)
    pieces_.push_back({frame + size_t{each} * i, i + 1 == parts ? length - each * i : each});
}

bool Guest::collect(const DriverRing::Used& element) {
  const std::byte* buffer = receiveBuffer(element.buffer);
  if (element.length > options_.receiveBytes)
    throw std::runtime_error("the device wrote more than a buffer holds");
  if (missing_ == 0) {
    if (element.length < kHeader) throw std::runtime_error("the device wrote less than a header");
    received_.header = reinterpret_cast<const virtqueue::NetHeader*>(buffer);
    received_.start = {buffer + kHeader, element.length - kHeader};
    received_.length = element.length - kHeader;
    received_.parts = {};
    const bool mergeable = features_ & feature::kMergeableBuffers;
    const uint16_t buffers = mergeable ? received_.header->buffers : uint16_t{1};
    if (buffers == 0) throw std::runtime_error("the device put a frame into no buffer");
    if (buffers > 1) parts_.assign(1, received_.start);
    missing_ = buffers - 1u;
  } else {
    parts_.emplace_back(buffer, element.length);
    received_.length += element.length;
    --missing_;
    received_.parts = parts_;
  }
  return missing_ == 0;
}

// Also the buffers of a frame of which others are still missing: the device doesn't come to them
// again before those are there.
void Guest::refill(std::span<const DriverRing::Used> used) {
  refilled_.clear();
  pieces_.clear();
  for (const auto& element : used) {
    refilled_.push_back(element.buffer);
    pieces_.push_back({receiveBuffer(element.buffer), options_.receiveBytes});
  }
  receive_.add(refilled_, pieces_);
  if (receive_.wantsKick()) ::eventfd_write(receiveKick_, 1);
}

void Guest::discard() {
  reclaim();
  refill(receive_.take());
}

void Guest::notify() {
  ::eventfd_write(transmitKick_, 1);
}

}  // namespace vdpa::guest
