#include "deviceplugin/datapath/switch/forwarding/delivery.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <variant>

#include "common/mutex.h"
#include "common/serving_page.h"
#include "deviceplugin/datapath/switch/forwarding/burst.h"
#include "deviceplugin/datapath/switch/forwarding/capture.h"
#include "deviceplugin/datapath/switch/forwarding/counters.h"
#include "deviceplugin/datapath/switch/forwarding/cpu_time.h"
#include "deviceplugin/datapath/switch/forwarding/cycles.h"
#include "deviceplugin/datapath/switch/forwarding/notifier.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/forwarding/spin_lock.h"
#include "deviceplugin/datapath/switch/forwarding/uplink.h"
#include "deviceplugin/datapath/switch/forwarding/vlan_tag.h"
#include "deviceplugin/datapath/switch/offload/net_offload.h"
#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/receive.h"

namespace vdpa::vswitch {
namespace {

constexpr unsigned kPatience = 2000;  // looks at a ring's lock: 10 us or more

// A lone poller needs no lock.
class RingLock {
 public:
  RingLock(SpinLock& lock, bool shared) NO_THREAD_SAFETY_ANALYSIS
      : lock_(shared ? &lock : nullptr) {
    if (lock_) lock_->lock();
  }
  // With kPatience: may fail.
  RingLock(SpinLock& lock, bool shared, std::try_to_lock_t) NO_THREAD_SAFETY_ANALYSIS
      : lock_(shared ? &lock : nullptr),
        held_(!lock_ || lock_->tryLock(kPatience)) {}
  ~RingLock() NO_THREAD_SAFETY_ANALYSIS {
    if (lock_ && held_) lock_->unlock();
  }
  RingLock(const RingLock&) = delete;
  RingLock& operator=(const RingLock&) = delete;

  bool held() const { return held_; }

 private:
  SpinLock* const lock_;
  const bool held_ = true;
};

// The header for a receiver that has what is needed. That a checksum was verified is of interest
// only to one that asked for such headers (virtio 1.2, 5.1.6.4.1).
virtqueue::NetHeader headerFor(const OffloadRequest& request, Offloads receiver) {
  return covers(receiver, Offloads::kChecksum) ? request.header : virtqueue::NetHeader{};
}

}  // namespace

Delivery::Delivery(unsigned poller, Uplink* uplink, Offences& offences, Notifier& notifier,
                   ServingPage::Cell& serving)
    : poller_(poller),
      uplink_(uplink),
      offences_(offences),
      notifier_(notifier),
      serving_(serving),
      debt_(measureCyclesPerSecond()) {}

// Which of the frames the port may get.
FrameSet Delivery::acceptable(const PortView& view, Counters& counters, const Burst& burst,
                              FrameSet frames) {
  if (!view.linkUp) {
    drop(view, counters, burst, frames, Drop::linkDown);
    return 0;
  }
  if (burst.longest > view.maxFrame) [[unlikely]] {
    const FrameSet before = frames;
    forEachFrame(frames, [&](size_t i) {
      if (burst.segmentLength(i) > view.maxFrame) frames &= ~(FrameSet{1} << i);
    });
    drop(view, counters, burst, before & ~frames, Drop::tooLong);
  }
  if (view.receiveLimit) {
    const FrameSet before = frames;
    forEachFrame(frames, [&](size_t i) {
      if (!view.receiveLimit->police(burst.wireBytes(i), burst.now)) frames &= ~(FrameSet{1} << i);
    });
    drop(view, counters, burst, before & ~frames, Drop::rate);
  }
  return frames;
}

void Delivery::prefetch(const PortView& view, uint16_t pair) {
  if (view.receiveCount == 0) return;
  const ReceiveQueue& queue = *view.receive[pair % view.receiveCount];
  std::visit([](const auto& ring) { ring.prefetch(); }, queue.ring);
}

// Frames that have got no place in a ring.
void Delivery::drop(const PortView& view, Counters& counters, const Burst& burst, FrameSet frames,
                    Drop reason) {
  counters.drop(reason, countOf(frames));
  if (!view.capture || frames == 0) [[likely]]
    return;
  Capture::Ring ring(*view.capture, poller_, Capture::Direction::kReceived, burst.now);
  forEachFrame(frames, [&](size_t i) {
    if (!view.trunk || burst.vlans[i] == view.vlan) return ring.dropped(burst.frames[i], reason);
    virtqueue::Frame tagged = burst.frames[i];
    insertTag(tagged, burst.vlans[i]);
    ring.dropped(tagged, reason);
  });
}

void Delivery::drop(const Target& to, size_t from, size_t count, Drop reason) {
  to.counters.drop(reason, count);
  if (!to.view.capture) [[likely]]
    return;
  Capture::Ring ring(*to.view.capture, poller_, Capture::Direction::kReceived, to.now);
  for (size_t i = from; i < from + count; ++i) ring.dropped(*run_.frames[i], reason);
}

// As the pod gets them.
void Delivery::captureRun(const Target& to, size_t from, size_t count) {
  Capture::Ring ring(*to.view.capture, poller_, Capture::Direction::kReceived, to.now);
  for (size_t i = 0; i < count; ++i)
    if (places_[i].room == virtqueue::Place::Room::kFound)
      ring.forwarded(*run_.frames[from + i]);
    else
      ring.dropped(*run_.frames[from + i], Drop::rxFull);
}

void Delivery::toPort(Port& port, const PortView& view, const Burst& burst, FrameSet frames,
                      uint16_t pair) {
  Counters& counters = port.counters[poller_];
  frames = acceptable(view, counters, burst, frames);
  if (frames == 0) return;
  ReceiveQueue* queue = view.receiveCount > 0 ? view.receive[pair % view.receiveCount] : nullptr;
  if (!queue || queue->broken.load(std::memory_order_relaxed) || debt_.owes(port.number, burst.now))
      [[unlikely]] {
    drop(view, counters, burst, frames, Drop::rxFull);
    return;
  }
  const Target to{port, view, *queue, counters, burst.now};
  serving_.begin(port.number, queue->index);
  std::visit([&](auto& ring) { fillRuns(to, ring, burst, frames); }, queue->ring);
  serving_.end();
}

template <typename R>
void Delivery::fillRuns(const Target& to, R& ring, const Burst& burst, FrameSet frames) {
  run_.count = 0;
  forEachFrame(frames, [&](size_t i) {
    virtqueue::NetHeader header;
    if (burst.isSpecial(i)) [[unlikely]] {
      if (!covers(to.queue.offloads, burst.requests[i].needed))
        return finishInto(to, ring, burst, i);
      header = headerFor(burst.requests[i], to.queue.offloads);
    }
    if (to.view.trunk) [[unlikely]]
      addTagged(to, burst.frames[i], header, burst.wireBytes(i), burst.vlans[i]);
    else
      run_.add(burst.frames[i], header, burst.wireBytes(i));
  });
  flush(to, ring);
}

// Finishes a frame for a receiver that cannot do so itself. The result lies in the finisher's
// memory and is written before the next frame, which overwrites it.
template <typename R>
void Delivery::finishInto(const Target& to, R& ring, const Burst& burst, size_t i) {
  flush(to, ring);
  const auto all = finisher_.finish(burst.frames[i], burst.requests[i], to.queue.offloads);
  if (all.empty())  // its sender has changed it since
    drop(to.view, to.counters, burst, FrameSet{1} << i, Drop::badOffload);
  for (const auto& finished : all) {
    if (run_.count == Burst::kMaxFrames) flush(to, ring);
    if (to.view.trunk)
      addTagged(to, finished.frame, finished.header, finished.frame.length, burst.vlans[i]);
    else
      run_.add(finished.frame, finished.header, finished.frame.length);
  }
  flush(to, ring);
}

// As a trunk port gets it. The frame may go to others without the tag, so this is a copy of its
// head.
void Delivery::addTagged(const Target& to, const virtqueue::Frame& frame,
                         virtqueue::NetHeader header, uint32_t bytes, uint16_t vlan) {
  if (vlan == to.view.vlan) return run_.add(frame, header, bytes);
  virtqueue::Frame& tagged = tagged_[run_.count];
  tagged = frame;
  insertTag(tagged, vlan);
  shiftOffsets(header, kTagBytes);
  run_.add(tagged, header, bytes + kTagBytes);
}

template <typename R>
void Delivery::flush(const Target& to, R& ring) {
  for (size_t done = 0; done < run_.count;) {
    const size_t handled = writeSome(to, ring, done);
    if (handled == 0) {
      drop(to, done, run_.count - done, Drop::rxFull);
      break;
    }
    done += handled;
  }
  run_.count = 0;
}

// Writes frames of the run from this one on: as many as there are places known for.
//
// A ring without room, or with too many leases, may only wait for another poller that the scheduler
// stopped between reserving and publishing. Its frames are dropped as those for any full ring:
// holding them back would stop this source's frames to everybody else for as long. So are they when
// another poller has the lock for longer than reserving usually takes: it was stopped there, or the
// pod's descriptors are slow to read. Only publish() waits for that, or the lease would be lost.
template <typename R>
size_t Delivery::writeSome(const Target& to, R& ring, size_t from) {
  const bool shared = to.port.counters.size() > 1;
  const std::span lengths = std::span(run_.lengths).subspan(from, run_.count - from);
  virtqueue::Lease lease;
  size_t handled;
  bool faulty;
  uint64_t start;
  {
    const RingLock lock(to.queue.lock, shared, std::try_to_lock);
    if (!lock.held()) return 0;
    start = cycles();
    handled = virtqueue::reserve(ring, to.queue.format, lengths, places_, buffers_, lease);
    faulty = static_cast<bool>(ring.fault());
  }
  for (size_t i = 0; i < handled; ++i)
    virtqueue::touchPlace(buffers_, places_[i], lengths[i] + to.queue.format.headerSize);
  price(to, cycles() - start, handled);
  uint64_t packets = 0, bytes = 0;
  for (size_t i = 0; i < handled; ++i) {
    if (i + 1 < handled && lengths[i + 1] > virtqueue::Frame::kHeadSize) {
      virtqueue::prefetchFrame(*run_.frames[from + i + 1]);
      virtqueue::prefetchPlace(buffers_, places_[i + 1], lengths[i + 1]);
    }
    if (places_[i].room != virtqueue::Place::Room::kFound) [[unlikely]]
      continue;
    virtqueue::write(buffers_, places_[i], to.queue.format, run_.headers[from + i],
                     *run_.frames[from + i]);
    ++packets;
    bytes += run_.wireBytes[from + i];
  }
  if (to.view.capture) [[unlikely]]
    captureRun(to, from, handled);
  ring.fill(lease, buffers_);
  bool notify;
  {
    RingLock lock(to.queue.lock, shared);
    notify = ring.publish(lease);
  }
  to.counters.rxPackets.add(packets);
  to.counters.rxBytes.add(bytes);
  if (packets < handled) to.counters.drop(Drop::rxFull, handled - packets);
  if (notify) notifier_.notify(to.queue);
  if (faulty && !to.queue.broken.exchange(true)) [[unlikely]]
    offences_.report(to.port.number, Offence::kRing);
  return handled;
}

// The copies are not looked at: they take as long as the sender's memory, too. What the receiver's
// pages may cost in them was touched before.
void Delivery::price(const Target& to, uint64_t took, size_t frames) {
  const uint64_t usual = debt_.usual(frames, buffers_.size());
  if (took <= usual) [[likely]]
    return;
  excess_ += took - usual;
  if (const uint64_t used = notifier_.cpuTime().used(took, cycles()); used > usual)
    debt_.charge(to.port.number, used - usual, to.now);
}

void Delivery::toUplink(Port& port, const PortView& view, const Burst& burst, FrameSet frames) {
  Counters& counters = port.counters[poller_];
  frames = acceptable(view, counters, burst, frames);
  run_.count = 0;
  const auto add = [this](const virtqueue::Frame& frame, const virtqueue::NetHeader& header,
                          uint32_t bytes, uint16_t vlan) {
    outgoing_[run_.count] = {&frame, header, vlan};
    run_.add(frame, header, vlan == 0 ? bytes : bytes + kTagBytes);
  };
  forEachFrame(frames, [&](size_t i) {
    const uint16_t vlan = burst.vlans[i];
    if (!burst.isSpecial(i)) return add(burst.frames[i], {}, burst.frames[i].length, vlan);
    const OffloadRequest& request = burst.requests[i];
    const Offloads offloads = request.extensions ? Offloads::kNone : uplink_->offloads();
    if (covers(offloads, request.needed))
      return add(burst.frames[i], request.header, request.wireBytes, vlan);
    flushUplink(counters);
    const auto all = finisher_.finish(burst.frames[i], request, offloads);
    if (all.empty()) counters.drop(Drop::badOffload, 1);
    for (const auto& finished : all) {
      if (run_.count == Burst::kMaxFrames) flushUplink(counters);
      add(finished.frame, finished.header, finished.frame.length, vlan);
    }
    flushUplink(counters);
  });
  flushUplink(counters);
}

void Delivery::flushUplink(Counters& counters) {
  const size_t count = run_.count;
  run_.count = 0;
  if (count == 0) return;
  size_t noMemory = 0;
  const size_t sent = uplink_->send(poller_, std::span(outgoing_).first(count), noMemory);
  uint64_t bytes = 0;
  for (size_t i = 0; i < sent; ++i) bytes += run_.wireBytes[i];
  counters.rxPackets.add(sent);
  counters.rxBytes.add(bytes);
  if (noMemory > 0) counters.drop(Drop::noMemory, noMemory);
  if (sent + noMemory < count) counters.drop(Drop::rxFull, count - sent - noMemory);
}

}  // namespace vdpa::vswitch
