// The device's side of a packed ring (virtio 1.2, 2.8). See README.md for the operations that both
// formats have, and which thread may call which.
#pragma once

#include <cstddef>
#include <cstdint>

#include "deviceplugin/datapath/virtqueue/address_map.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/dirty_log.h"
#include "deviceplugin/datapath/virtqueue/fault.h"
#include "deviceplugin/datapath/virtqueue/lease_order.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"
#include "deviceplugin/datapath/virtqueue/wire.h"

namespace vdpa::virtqueue {

class PackedRing {
 public:
  static constexpr Format kFormat = Format::kPacked;

  // `map` translates the addresses in descriptors; it and the memory of the areas are borrowed.
  // Throws VirtqueueError.
  PackedRing(const RingSetup& setup, const AddressMap& map);

  void prefetch() const;
  size_t read(BufferList& list, size_t most);
  void rewind() {
    next_ = taken_;
    ahead_ = 0;
    reader_.forgetMiss();
  }
  Lease take(const BufferList& list, size_t count);
  void fill(Lease& lease, const BufferList& list) const;
  bool publish(const Lease& lease);

  bool available() const;
  bool requestNotifications();
  void suppressNotifications();

  size_t openLeases() const { return order_.open(); }
  const BufferReader& reader() const { return reader_; }
  const Fault& fault() const { return reader_.fault(); }
  Positions positions() const { return {taken_, published_}; }
  uint32_t size() const { return size_; }

  void setMap(const AddressMap& map) { reader_.setMap(map); }
  void setLog(const DirtyLog* log) { log_ = log; }  // borrowed; null: no migration

 private:
  std::byte* descriptorAt(Position position) const {
    return areas_.descriptors + kDescriptorSize * position.index;
  }
  Position after(Position position, uint32_t entries) const;
  // Entries from one position to another, at most a lap after it; more than the ring's if it is
  // behind.
  uint32_t distance(Position from, Position to) const;
  PackedDescriptor descriptor(Position position) const;
  bool gather(BufferList& list, Position position, PackedDescriptor descriptor, uint32_t most);
  bool gatherTable(const PackedDescriptor& table);
  void markUsed(Position position, const UsedElement& element) const;
  bool wantsNotification(Position before);
  void logUsed(const Lease& lease, const BufferList& list) const;
  void logDescriptor(Position position) const;
  void setEvents(uint32_t value);

  const uint32_t size_;
  const bool eventIndex_;
  const bool transmit_;
  const uint16_t usedFlags_;  // of a used descriptor, besides those of the wrap counter
  const RingAreas areas_;
  BufferReader reader_;
  const DirtyLog* log_ = nullptr;
  LeaseOrder order_;

  Position next_;       // to read
  Position taken_;      // next_ without what was read ahead
  Position leased_;     // next used descriptor to give to a lease
  Position published_;  // next used descriptor that the driver waits for
  uint32_t open_;       // entries taken whose used descriptors are not published
  uint32_t ahead_ = 0;  // entries from taken_ to next_
  bool notified_ = false;
};

}  // namespace vdpa::virtqueue
