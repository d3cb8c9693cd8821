// One poller's forwarding: takes a burst of frames from a source, decides where each of them goes,
// and delivers them. Nothing here blocks, locks (but for a few dozen loads), allocates or makes a
// system call, except to notify pods and in the uplink.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/serving_page.h"
#include "deviceplugin/datapath/switch/forwarding/burst.h"
#include "deviceplugin/datapath/switch/forwarding/delivery.h"
#include "deviceplugin/datapath/switch/forwarding/lookup.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/memo.h"
#include "deviceplugin/datapath/switch/forwarding/notifier.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/origin.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/forwarding/uplink.h"

namespace vdpa::vswitch {

// Belongs to one poller, for its thread only.
class Forwarder {
 public:
  // Pieces of a frame, including its header's: 64 KiB take up to 17 pages.
  static constexpr uint16_t kMaxPieces = 64;
  // Frames of a burst to all, as a wire would see them: a receiver without offloads gets each of
  // them, finished for it alone. More than any burst has without segmentation, or than one frame
  // of 64 KiB is cut into at an MTU of 576.
  static constexpr uint32_t kMaxFlooded = 128;

  struct Shared {
    PortTable& ports;
    MacTable& table;
    Offences& offences;
    Uplink* uplink;  // null: none
  };
  Forwarder(unsigned poller, const Shared& shared, Notifier& notifier, ServingPage::Cell& serving);

  // The time of a pass.
  struct Time {
    uint64_t now = 0;         // cycles
    uint32_t seconds = 0;     // the table's clock
    uint64_t generation = 0;  // the PortTable's version
  };
  // Both return how many frames there were, up to `most` (at most Burst::kMaxFrames).
  size_t serve(TransmitQueue& queue, const PortView& view, Memo& memo, size_t most,
               const Time& time);
  size_t serveUplink(Memo& memo, size_t most, const Time& time);
  // Cycles since the last call that are receivers' to pay, not the source's.
  uint64_t takeExcess() { return delivery_.takeExcess(); }
  // The port is gone, and its number may be another's.
  void forget(MacTable::Port port) { delivery_.forget(port); }

 private:
  // Frames of one VLAN that go to all its ports.
  struct Flood {
    uint16_t vlan = 0;
    FrameSet frames = 0;
    uint32_t segments = 0;  // of the burst's, of whatever VLAN
  };

  void begin(const Origin& from, const Time& time);
  void readQueue(const Origin& from, const TransmitQueue& queue, size_t count, const Time& time);
  bool readOffloads(const Origin& from, const TransmitQueue& queue, size_t i, bool tagged);
  bool untag(const Origin& from, size_t i, uint16_t type);
  void admit(const Origin& from, size_t i, const Time& time);
  void send(const Origin& from, size_t i, Verdict verdict);
  void add(MacTable::Port port, FrameSet frames);
  void flood(const Origin& from);
  void deliver(const Origin& from);
  // One of the burst's frames.
  void drop(const Origin& from, size_t i, Drop reason) {
    burst_.dropped |= FrameSet{1} << i;
    burst_.reasons[i] = reason;
    from.port.counters[poller_].drop(reason, 1);
  }
  void dropAll(const Origin& from, const TransmitQueue& queue, size_t count);
  void capture(const Origin& from, const TransmitQueue& queue, size_t count);

  const unsigned poller_;
  const Shared shared_;
  Notifier& notifier_;
  ServingPage::Cell& serving_;
  Lookup lookup_;
  Delivery delivery_;

  Burst burst_;
  Flood flood_;
  std::vector<FrameSet> frames_;         // by destination's number; all 0 between bursts
  std::vector<MacTable::Port> touched_;  // those that are not; never exceeds its capacity
};

}  // namespace vdpa::vswitch
