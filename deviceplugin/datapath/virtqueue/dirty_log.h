// The pages that the device has written to, for a live migration: a bit for each 4 KiB page of
// guest-physical memory, in a file that the front-end shares and clears while it copies
// (vhost-user: "Migration", VHOST_USER_SET_LOG_BASE).
//
// A page's bit is set after the page is written: set before, the front-end could copy the page in
// between. The bits of buffers are set before the used index that gives them back, that of the
// index's own page after it.
//
// mark() may be called from any thread: the bits are set atomically.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"

namespace vdpa::virtqueue {

class DirtyLog {
 public:
  static constexpr uint64_t kPageSize = 4096;  // VHOST_LOG_PAGE, whatever the guest's pages are

  // Borrows the mapped log.
  explicit DirtyLog(std::span<std::byte> bits) : bits_(bits) {}

  // [physical, physical + bytes) was written. Pages without a bit are not logged: the front-end
  // made the log too short for its own memory.
  void mark(uint64_t physical, uint64_t bytes) const;
  // The same of what was written to the first `count` buffers of a list.
  void markWritten(const BufferList& list, size_t count) const;

 private:
  std::span<std::byte> bits_;
};

}  // namespace vdpa::virtqueue
