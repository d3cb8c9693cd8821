// The device's side of a split ring (virtio 1.2, 2.7). See README.md for the operations that both
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

class SplitRing {
 public:
  static constexpr Format kFormat = Format::kSplit;

  // `map` translates the addresses in descriptors; it and the memory of the areas are borrowed.
  // Throws VirtqueueError.
  SplitRing(const RingSetup& setup, const AddressMap& map);

  void prefetch() const;
  size_t read(BufferList& list, size_t most);
  void rewind() {
    next_ = taken_;
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
  Positions positions() const { return {{taken_, false}, {published_, false}}; }
  uint32_t size() const { return size_; }

  void setMap(const AddressMap& map) { reader_.setMap(map); }
  void setLog(const DirtyLog* log) { log_ = log; }  // borrowed; null: no migration

 private:
  uint16_t loadAvailableIndex();
  uint16_t head(uint16_t index) const;
  Descriptor descriptor(uint16_t index) const;
  bool gather(BufferList& list, uint16_t entry, uint16_t head, Descriptor descriptor);
  bool gatherTable(uint16_t head, const Descriptor& table);
  bool wantsNotification(uint16_t before);
  void logUsed(const Lease& lease, const BufferList& list) const;
  void logDevice(size_t offset, size_t bytes) const;

  const uint32_t size_;
  const uint16_t mask_;
  const bool eventIndex_;
  const RingAreas areas_;
  BufferReader reader_;
  const DirtyLog* log_ = nullptr;
  LeaseOrder order_;

  // Indexes run freely; masked, they are entries.
  uint16_t seen_;       // the driver's index, as last loaded
  uint16_t next_;       // to read
  uint16_t taken_;      // next_ without what was read ahead
  uint16_t leased_;     // next used element to give to a lease
  uint16_t published_;  // the used index
  bool notified_ = false;
};

}  // namespace vdpa::virtqueue
