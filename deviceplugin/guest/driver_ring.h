// The driver's side of a virtqueue, made for speed, for vdpa-ping and for tests of devices: split
// or packed (virtio 1.2, 2.7 and 2.8). It has as many buffers as fit; each is known by a number,
// and takes the same number of the ring's entries as any other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"
#include "deviceplugin/guest/shared_memory.h"

namespace vdpa::guest {

struct RingOptions {
  virtqueue::Format format = virtqueue::Format::kSplit;
  uint32_t size = 256;      // entries
  uint32_t pieces = 1;      // descriptors of a buffer
  bool indirect = false;    // they are in a table, and the buffer takes one entry
  bool eventIndex = false;  // negotiated
  bool inOrder = false;     // negotiated
  bool calls = false;       // whether to ask for notifications at first; see setCalls()
};

// A part of a buffer. Its length in bytes is written to the ring as it is, even if it is wrong.
struct Piece {
  std::byte* data;
  uint32_t length;
};

// Borrows its memory. For one thread.
class DriverRing {
 public:
  struct Used {
    uint32_t buffer;
    uint32_t length;  // bytes written by the device
  };

  DriverRing(SharedMemory& memory, virtqueue::Direction direction, const RingOptions& options);

  const virtqueue::RingAddresses& addresses() const { return addresses_; }
  uint32_t size() const { return options_.size; }
  bool packed() const { return options_.format == virtqueue::Format::kPacked; }
  uint32_t buffers() const {
    return options_.indirect ? options_.size : options_.size / options_.pieces;
  }

  // The buffers that the device has used since the last call, at most size().
  std::span<const Used> take();
  // Makes `count` buffers available, in this order; `pieces` has those of each, one after the
  // other. A split ring's receive descriptors are written the first time only: they don't change.
  void add(std::span<const uint32_t> buffers, std::span<const Piece> pieces);
  // Whether the device is to notify of used buffers. A driver that switches it on must take() once
  // more before it sleeps: the device may have used a buffer before it saw that.
  void setCalls(bool on);
  // Whether the device asks to be notified of what was added since the last call.
  bool wantsKick();

  // Where the tables of indirect descriptors and the ring's areas are.
  static size_t memoryFor(const RingOptions& options);

 private:
  std::byte* descriptor(uint32_t index) const { return descriptors_ + 16 * size_t{index}; }
  uint32_t entriesPerBuffer() const { return options_.indirect ? 1 : options_.pieces; }
  virtqueue::Position after(virtqueue::Position position, uint32_t entries) const;
  void writeTable(uint32_t buffer, std::span<const Piece> pieces);
  void addSplit(std::span<const uint32_t> buffers, std::span<const Piece> pieces);
  void addPacked(std::span<const uint32_t> buffers, std::span<const Piece> pieces);
  size_t takeSplit();
  size_t takePacked();
  void askForCalls();

  const RingOptions options_;
  const virtqueue::Direction direction_;
  virtqueue::RingAddresses addresses_{};
  std::byte *descriptors_, *driver_, *device_, *tables_ = nullptr;
  std::vector<Used> used_;
  std::vector<bool> written_;  // by buffer: its descriptors are in the ring, or in its table
  bool calls_;
  uint32_t nextUsed_ = 0;  // buffer, of a device that uses them in order
  // Split: indices that count up. Packed: entries with wrap counters.
  uint16_t available_ = 0, seen_ = 0, kickedAt_ = 0;
  virtqueue::Position next_{0, true}, nextSeen_{0, true};
  uint32_t addedSinceKick_ = 0;  // entries
};

}  // namespace vdpa::guest
