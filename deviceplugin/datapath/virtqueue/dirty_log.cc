#include "deviceplugin/datapath/virtqueue/dirty_log.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"

namespace vdpa::virtqueue {

void DirtyLog::mark(uint64_t physical, uint64_t bytes) const {
  if (bytes == 0 || bits_.empty()) return;
  const uint64_t last = physical + std::min(bytes - 1, UINT64_MAX - physical);
  const uint64_t lastLogged = uint64_t{bits_.size()} * 8 - 1;
  const uint64_t end = std::min(last / kPageSize, lastLogged);
  // Release: whoever takes the bit sees what was written to the page.
  for (uint64_t page = physical / kPageSize; page <= end; ++page)
    __atomic_fetch_or(reinterpret_cast<uint8_t*>(bits_.data()) + page / 8,
                      static_cast<uint8_t>(1u << page % 8), __ATOMIC_RELEASE);
}

void DirtyLog::markWritten(const BufferList& list, size_t count) const {
  for (size_t i = 0; i < count; ++i) {
    const Buffer& buffer = list[i];
    if (buffer.pieces == 1) {
      mark(buffer.physical, buffer.written);
      continue;
    }
    uint32_t left = buffer.written;
    for (const Segment& piece : list.segments(buffer)) {
      const uint32_t part = std::min(left, piece.length);
      mark(piece.physical, part);
      left -= part;
    }
  }
}

}  // namespace vdpa::virtqueue
