// The last step of forwarding: copies frames of a burst into a destination's buffers. Reserves the
// buffers, writes them, publishes them to the pod and notifies it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "common/serving_page.h"
#include "deviceplugin/datapath/switch/forwarding/burst.h"
#include "deviceplugin/datapath/switch/forwarding/counters.h"
#include "deviceplugin/datapath/switch/forwarding/notifier.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/forwarding/receive_debt.h"
#include "deviceplugin/datapath/switch/forwarding/uplink.h"
#include "deviceplugin/datapath/switch/offload/net_offload.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/receive.h"

namespace vdpa::vswitch {

// Belongs to one poller, for its thread only.
class Delivery {
 public:
  // `uplink` may be null; its queue and the ports' counters have the poller's number.
  Delivery(unsigned poller, Uplink* uplink, Offences& offences, Notifier& notifier,
           ServingPage::Cell& serving);

  // Dropped frames are counted as the port's. `pair` selects one of its queues.
  void toPort(Port& port, const PortView& view, const Burst& burst, FrameSet frames, uint16_t pair);
  // Fetches the lines of the port's ring that other cores have, before toPort() waits for them.
  static void prefetch(const PortView& view, uint16_t pair);
  void toUplink(Port& port, const PortView& view, const Burst& burst, FrameSet frames);
  // What receivers' rings took since the last call that is not the sender's to pay, in cycles.
  uint64_t takeExcess() { return std::exchange(excess_, 0); }
  void forget(MacTable::Port port) { debt_.forget(port); }

 private:
  // Frames that are written to one destination at once.
  struct Run {
    size_t count = 0;
    std::array<const virtqueue::Frame*, Burst::kMaxFrames> frames;
    std::array<virtqueue::NetHeader, Burst::kMaxFrames> headers;
    std::array<uint32_t, Burst::kMaxFrames> lengths;    // bytes in the buffers
    std::array<uint32_t, Burst::kMaxFrames> wireBytes;  // and as counted

    void add(const virtqueue::Frame& frame, const virtqueue::NetHeader& header, uint32_t bytes) {
      frames[count] = &frame;
      headers[count] = header;
      lengths[count] = frame.length;
      wireBytes[count++] = bytes;
    }
  };
  struct Target {
    Port& port;
    const PortView& view;
    ReceiveQueue& queue;
    Counters& counters;
    uint64_t now;  // cycles: when the pass began
  };

  FrameSet acceptable(const PortView& view, Counters& counters, const Burst& burst,
                      FrameSet frames);
  void drop(const PortView& view, Counters& counters, const Burst& burst, FrameSet frames,
            Drop reason);
  // Of the run, from `from` on.
  void drop(const Target& to, size_t from, size_t count, Drop reason);
  void captureRun(const Target& to, size_t from, size_t count);
  template <typename R>
  void fillRuns(const Target& to, R& ring, const Burst& burst, FrameSet frames);
  template <typename R>
  void finishInto(const Target& to, R& ring, const Burst& burst, size_t i);
  void addTagged(const Target& to, const virtqueue::Frame& frame, virtqueue::NetHeader header,
                 uint32_t bytes, uint16_t vlan);
  template <typename R>
  void flush(const Target& to, R& ring);
  template <typename R>
  size_t writeSome(const Target& to, R& ring, size_t from);
  void price(const Target& to, uint64_t took, size_t frames);
  void flushUplink(Counters& counters);

  const unsigned poller_;
  Uplink* const uplink_;
  Offences& offences_;
  Notifier& notifier_;
  ServingPage::Cell& serving_;
  Finisher finisher_;
  ReceiveDebt debt_;
  uint64_t excess_ = 0;

  Run run_;
  std::array<virtqueue::Frame, Burst::kMaxFrames> tagged_;  // those of a run with a tag inserted
  std::array<Uplink::Outgoing, Burst::kMaxFrames> outgoing_;
  std::array<virtqueue::Place, Burst::kMaxFrames> places_;
  virtqueue::BufferList buffers_;
};

}  // namespace vdpa::vswitch
