// Writes the frames of a port to whoever captures them: into a ring of each poller's
// (common/capture_ring.h), as the pod sent them and as it receives them, with the reason of those
// that are dropped. A poller waits for nobody: what finds no room there is counted and left out.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/capture_ring.h"
#include "deviceplugin/datapath/switch/forwarding/counters.h"
#include "deviceplugin/datapath/virtqueue/frame.h"

namespace vdpa::vswitch {

// Made and destroyed by the control thread; retired when it goes (epoch.h).
class Capture {
 public:
  // `memory` is checked, for as many rings as there are pollers. Throws std::system_error.
  Capture(int memory, unsigned pollers, uint32_t snapLength);

  // --- a poller, for its own ring
  enum class Direction : uint8_t { kSent, kReceived };  // by the pod
  class Ring {
   public:
    // Frames of one direction, of one burst, whose pass began at `now`.
    Ring(const Capture& capture, unsigned poller, Direction direction, uint64_t now)
        : writer_(*capture.writers_[poller]),
          snapLength_(capture.snapLength_),
          direction_(direction),
          now_(now) {}
    ~Ring() { writer_.publish(); }
    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;

    void forwarded(const virtqueue::Frame& frame) { write(frame, 0); }
    void dropped(const virtqueue::Frame& frame, Drop reason) {
      write(frame, static_cast<uint8_t>(static_cast<uint8_t>(reason) + 1));
    }

   private:
    void write(const virtqueue::Frame& frame, uint8_t drop);

    CaptureWriter& writer_;
    const uint32_t snapLength_;
    const Direction direction_;
    const uint64_t now_;
  };

 private:
  const uint32_t snapLength_;                            // bytes
  std::vector<std::unique_ptr<CaptureWriter>> writers_;  // by poller
};

}  // namespace vdpa::vswitch
