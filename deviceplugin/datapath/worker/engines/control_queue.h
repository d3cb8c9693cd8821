// A network device's control virtqueue, with the worker as its driver: the pod's driver only speaks
// to its own front-end, but the device still has to know how many queue pairs to use.
//
// Source: virtio 1.2, 5.1.6.5 (control virtqueue) and 2.7 (split) and 2.8 (packed virtqueues).
#pragma once

#include <cstdint>
#include <string>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/worker/engines/vhost_vdpa_device.h"

namespace vdpa::worker {

class ControlQueue {
 public:
  // Bytes of memory that it needs; whole pages, addressed by the device from `iova` on.
  static constexpr uint64_t kMemory = 4096;

  // `index` is the virtqueue's. Throws std::system_error.
  ControlQueue(uint32_t index, uint64_t iova, bool packed);
  ~ControlQueue();
  ControlQueue(const ControlQueue&) = delete;
  ControlQueue& operator=(const ControlQueue&) = delete;

  void* memory() const { return memory_; }
  VhostVdpaDevice::Queue queue() const;

  // Makes the running device use this many pairs, and waits briefly for its answer. Throws
  // std::system_error if it refuses or does not answer.
  void usePairs(uint16_t pairs);

 private:
  bool answered() const;

  const uint32_t index_;
  const uint64_t iova_;
  const bool packed_;
  UniqueFd kick_, call_;
  std::byte* memory_ = nullptr;
  uint16_t next_ = 0;  // the next entry of the ring
  bool wrap_ = true;   // packed: the driver's wrap counter
  uint16_t used_ = 0;  // split: used index expected next
  uint16_t last_ = 0;  // packed: the entry whose flags show completion
  bool lastWrap_ = true;
};

}  // namespace vdpa::worker
