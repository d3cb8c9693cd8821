#include "deviceplugin/datapath/switch/forwarding/capture.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include "common/capture_ring.h"
#include "deviceplugin/datapath/virtqueue/frame.h"

namespace vdpa::vswitch {

Capture::Capture(int memory, unsigned pollers, uint32_t snapLength) : snapLength_(snapLength) {
  for (unsigned poller = 0; poller < pollers; ++poller)
    writers_.push_back(std::make_unique<CaptureWriter>(memory, poller));
}

// The pod may write to what is behind the head meanwhile: this copy is read by nobody here.
void Capture::Ring::write(const virtqueue::Frame& frame, uint8_t drop) {
  const uint32_t captured = std::min(frame.length, snapLength_);
  std::byte* const at = writer_.reserve(captured);
  if (!at) return;
  const CaptureRecord record{now_, frame.length, captured,
                             static_cast<uint8_t>(direction_ == Direction::kReceived), drop};
  std::memcpy(at, &record, sizeof record);
  virtqueue::copyFront(frame, at + sizeof record, captured);
}

}  // namespace vdpa::vswitch
