// Leases of one ring may be finished in any order; their used elements appear to the driver in the
// order of the leases. One that is finished before an earlier one waits here, and is published
// together with it.
#pragma once

#include <array>
#include <cstddef>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"

namespace vdpa::virtqueue {

class LeaseOrder {
 public:
  // Open leases of one ring at once: one for each thread that copies into it.
  static constexpr size_t kMaxLeases = 64;

  bool full() const { return open_ == kMaxLeases; }
  size_t open() const { return open_; }
  void opened() { ++open_; }

  // If the lease starts at `position`, calls publish(lease) for it and for those that waited for
  // it; publish() advances `position`. False: the lease waits now.
  template <typename Publish>
  bool finished(const Lease& lease, const Position& position, Publish publish) {
    if (lease.start != position) [[unlikely]] {
      waiting_[count_++] = lease;
      return false;
    }
    publish(lease);
    --open_;
    for (size_t i = 0; i < count_;) {
      if (waiting_[i].start != position) {
        ++i;
        continue;
      }
      publish(waiting_[i]);
      --open_;
      waiting_[i] = waiting_[--count_];
      i = 0;
    }
    return true;
  }

 private:
  size_t open_ = 0;  // leases that are not published
  size_t count_ = 0;
  std::array<Lease, kMaxLeases> waiting_;
};

}  // namespace vdpa::virtqueue
