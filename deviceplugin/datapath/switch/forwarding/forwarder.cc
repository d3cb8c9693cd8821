#include "deviceplugin/datapath/switch/forwarding/forwarder.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>

#include "common/serving_page.h"
#include "deviceplugin/datapath/switch/forwarding/burst.h"
#include "deviceplugin/datapath/switch/forwarding/capture.h"
#include "deviceplugin/datapath/switch/forwarding/counters.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/memo.h"
#include "deviceplugin/datapath/switch/forwarding/notifier.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/origin.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/forwarding/uplink.h"
#include "deviceplugin/datapath/switch/forwarding/vlan_tag.h"
#include "deviceplugin/datapath/switch/offload/net_offload.h"
#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/transmit.h"

namespace vdpa::vswitch {
namespace {

constexpr uint8_t kDataValid = 2;  // VIRTIO_NET_HDR_F_DATA_VALID (virtio 1.2, 5.1.6)

// Whether frames are dropped for this before they are read.
bool isUnread(Drop reason) {
  return reason == Drop::linkDown || reason == Drop::chainTooLong || reason == Drop::runt;
}

}  // namespace

Forwarder::Forwarder(unsigned poller, const Shared& shared, Notifier& notifier,
                     ServingPage::Cell& serving)
    : poller_(poller),
      shared_(shared),
      notifier_(notifier),
      serving_(serving),
      lookup_(shared.table, shared.ports),
      delivery_(poller, shared.uplink, shared.offences, notifier, serving),
      frames_(MacTable::kMaxPorts) {
  touched_.reserve(MacTable::kMaxPorts);
}

size_t Forwarder::serve(TransmitQueue& queue, const PortView& view, Memo& memo, size_t most,
                        const Time& time) {
  const Origin from{*queue.port, view, memo, static_cast<uint16_t>(queue.index / 2)};
  serving_.begin(from.port.number, queue.index);
  const size_t count = std::visit(
      [&](auto& ring) -> size_t {
        virtqueue::Lease lease;
        const size_t taken = virtqueue::fetch(ring, burst_.list, most, lease);
        // Buffers that were read before a fault are good.
        if (ring.fault() && !queue.broken.exchange(true)) [[unlikely]]
          shared_.offences.report(from.port.number, Offence::kRing);
        if (taken == 0) return 0;
        if (view.linkUp) {
          begin(from, time);
          readQueue(from, queue, taken, time);
          if (view.capture) [[unlikely]]
            capture(from, queue, taken);
          deliver(from);
          serving_.begin(from.port.number, queue.index);
        } else {
          burst_.now = time.now;
          dropAll(from, queue, taken);
        }
        if (virtqueue::giveBack(ring, burst_.list, lease)) notifier_.notify(queue);
        return taken;
      },
      queue.ring);
  serving_.end();
  return count;
}

size_t Forwarder::serveUplink(Memo& memo, size_t most, const Time& time) {
  Port* port = shared_.ports.find(kUplinkPort);
  if (!port) return 0;
  std::array<UplinkFrame, Burst::kMaxFrames> received;
  const size_t count = shared_.uplink->receive(poller_, std::span(received).first(most));
  if (count == 0) return 0;
  for (size_t i = 0; i < count; ++i) __builtin_prefetch(received[i].data);
  const Origin from{*port, *port->view.load(std::memory_order_acquire), memo,
                    static_cast<uint16_t>(poller_)};
  if (from.view.linkUp) {
    begin(from, time);
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; ++i) {
      virtqueue::Frame& frame = burst_.frames[i];
      frame = virtqueue::frameOf(received[i].data, received[i].length);
      bytes += frame.length;
      if (frame.length < kEthernetHeader) {
        drop(from, i, Drop::runt);
        continue;
      }
      burst_.vlans[i] = from.view.vlan;
      const uint16_t type = typeOf(frame);
      if (isTag(type) && !untag(from, i, type)) continue;
      if (received[i].checked) {
        burst_.special |= FrameSet{1} << i;
        burst_.requests[i] = {.header = {.flags = kDataValid},
                              .needed = Offloads::kNone,
                              .segmentLength = frame.length,
                              .wireBytes = frame.length};
      }
      admit(from, i, time);
    }
    from.port.counters[poller_].txPackets.add(count);
    from.port.counters[poller_].txBytes.add(bytes);
    deliver(from);
  } else {
    port->counters[poller_].drop(Drop::linkDown, count);
  }
  shared_.uplink->release(poller_);
  return count;
}

void Forwarder::begin(const Origin& from, const Time& time) {
  burst_.now = time.now;
  burst_.special = burst_.untagged = burst_.dropped = 0;
  burst_.longest = 0;
  flood_.segments = 0;
  from.memo.begin({shared_.table.changes(), time.seconds, time.generation});
}

void Forwarder::readQueue(const Origin& from, const TransmitQueue& queue, size_t count,
                          const Time& time) {
  // What is dropped counts, and costs its sender, no more than a frame's maximum: a descriptor may
  // claim 4 GiB.
  const uint32_t most = from.view.maxFrame;
  uint64_t bytes = 0;
  for (size_t i = 0; i < count; ++i) {
    const virtqueue::Buffer& buffer = burst_.list[i];
    virtqueue::Frame& frame = burst_.frames[i];
    if (buffer.pieces > kMaxPieces) [[unlikely]] {
      bytes += std::min(buffer.length, most);
      drop(from, i, Drop::chainTooLong);
      continue;
    }
    if (!virtqueue::readFrame(burst_.list, buffer, queue.format.headerSize, frame)) [[unlikely]] {
      drop(from, i, Drop::runt);
      continue;
    }
    const uint32_t length = frame.length, counted = std::min(length, most);
    bytes += counted;
    if (length < kEthernetHeader) [[unlikely]] {
      drop(from, i, Drop::runt);
      continue;
    }
    // Untagged frames of a trunk port have its native VLAN, or none.
    burst_.vlans[i] = from.view.vlan;
    const uint16_t type = typeOf(frame);
    const bool tagged = isTag(type);
    if (tagged || from.view.trunk) [[unlikely]]
      if (!untag(from, i, type)) continue;
    if (queue.offloads != Offloads::kNone) {
      if (!readOffloads(from, queue, i, tagged)) continue;
    }
    if ((tagged || burst_.isSpecial(i)) && burst_.segmentLength(i) <= most) [[unlikely]]
      bytes += burst_.wireBytes(i) + (tagged ? kTagBytes : 0) - counted;
    admit(from, i, time);
  }
  Counters& counters = from.port.counters[poller_];
  counters.txPackets.add(count);
  counters.txBytes.add(bytes);
  if (from.view.sendLimit) [[unlikely]]
    from.view.sendLimit->charge(bytes, time.now);
}

// Of a port whose link is down.
void Forwarder::dropAll(const Origin& from, const TransmitQueue& queue, size_t count) {
  burst_.dropped = 0;
  for (size_t i = 0; i < count; ++i) drop(from, i, Drop::linkDown);
  if (from.view.capture) capture(from, queue, count);
}

// As the pod sent them. Those that were dropped before they were read are read now.
void Forwarder::capture(const Origin& from, const TransmitQueue& queue, size_t count) {
  Capture::Ring ring(*from.view.capture, poller_, Capture::Direction::kSent, burst_.now);
  virtqueue::Frame copy;
  for (size_t i = 0; i < count; ++i) {
    const bool dropped = burst_.dropped >> i & 1;
    const virtqueue::Frame* frame = &burst_.frames[i];
    if (dropped && isUnread(burst_.reasons[i])) {
      copy.length = copy.headBytes = 0;
      virtqueue::readFrame(burst_.list, burst_.list[i], queue.format.headerSize, copy);
      frame = &copy;
    } else if (burst_.untagged >> i & 1) {
      copy = *frame;
      insertTag(copy, burst_.tags[i]);
      frame = &copy;
    }
    if (dropped)
      ring.dropped(*frame, burst_.reasons[i]);
    else
      ring.forwarded(*frame);
  }
}

// Takes the tag from a frame that may have one. False: it is dropped.
bool Forwarder::untag(const Origin& from, size_t i, uint16_t type) {
  virtqueue::Frame& frame = burst_.frames[i];
  const bool tagged = isTag(type);
  const VlanSet* trunk = from.view.trunk.get();
  bool allowed;
  if (!tagged) {
    allowed = !trunk || from.view.vlan != 0;
  } else if ((!trunk && !from.isUplink()) || type != kTagType ||
             frame.length < kEthernetHeader + kTagBytes) {
    // An access port has one VLAN, and no tags.
    allowed = false;
  } else {
    burst_.tags[i] = tagControl(frame);
    burst_.untagged |= FrameSet{1} << i;
    burst_.vlans[i] = removeTag(frame);
    // A second tag would reach an access port.
    allowed = !trunk || (trunk->test(burst_.vlans[i]) && !isTag(typeOf(frame)));
  }
  if (!allowed) drop(from, i, Drop::vlan);
  return allowed;
}

// Reads the request in a frame's header. False: the frame is dropped.
bool Forwarder::readOffloads(const Origin& from, const TransmitQueue& queue, size_t i,
                             bool tagged) {
  virtqueue::Frame& frame = burst_.frames[i];
  virtqueue::NetHeader header =
      virtqueue::readHeader(burst_.list, burst_.list[i], queue.format.headerSize);
  if (isPlain(header)) [[likely]]
    return true;
  if (tagged) shiftOffsets(header, -static_cast<int>(kTagBytes));
  if (!readRequest(header, frame, queue.offloads, burst_.requests[i])) {
    drop(from, i, Drop::badOffload);
    return false;
  }
  burst_.special |= FrameSet{1} << i;
  return true;
}

inline void Forwarder::admit(const Origin& from, size_t i, const Time& time) {
  const uint32_t length = burst_.segmentLength(i);
  if (length > from.view.maxFrame) [[unlikely]]
    return drop(from, i, Drop::tooLong);
  burst_.longest = std::max(burst_.longest, length);
  const AddressPair pair(burst_.frames[i], burst_.vlans[i]);
  const Verdict* known = from.memo.find(pair);
  send(from, i, known ? *known : lookup_.decide(from, pair, time.seconds));
}

inline void Forwarder::send(const Origin& from, size_t i, Verdict verdict) {
  const FrameSet frame = FrameSet{1} << i;
  if (verdict <= kLastPort) [[likely]]
    return add(verdict, frame);
  if (verdict == kSpoofed) return drop(from, i, Drop::spoofed);
  if (verdict != kToAll) return;
  const uint32_t segments = burst_.segments(i);
  if (flood_.segments + segments > kMaxFlooded) [[unlikely]]
    return drop(from, i, Drop::storm);
  if (from.view.stormLimit && !from.view.stormLimit->police(segments, burst_.now))
    return drop(from, i, Drop::storm);
  flood_.segments += segments;
  if (flood_.vlan != burst_.vlans[i]) flood(from);
  flood_.vlan = burst_.vlans[i];
  flood_.frames |= frame;
}

inline void Forwarder::add(MacTable::Port port, FrameSet frames) {
  if (frames_[port] == 0) touched_.push_back(port);
  frames_[port] |= frames;
}

// Those that wait for it, at once: the list of a VLAN's ports may be long.
void Forwarder::flood(const Origin& from) {
  if (flood_.frames == 0) return;
  if (const auto* members = shared_.ports.members(flood_.vlan))
    for (const Port* port : *members)
      if (port != &from.port) add(port->number, flood_.frames);
  if (shared_.uplink && !from.isUplink()) add(kUplinkPort, flood_.frames);
  flood_.frames = 0;
}

void Forwarder::deliver(const Origin& from) {
  flood(from);
  if (touched_.size() > 1)
    for (const MacTable::Port number : touched_)
      if (Port* port = shared_.ports.find(number))
        Delivery::prefetch(*port->view.load(std::memory_order_acquire), from.pair);
  for (const MacTable::Port number : touched_) {
    const FrameSet frames = frames_[number];
    frames_[number] = 0;
    Port* port = shared_.ports.find(number);
    if (!port) continue;
    const PortView& view = *port->view.load(std::memory_order_acquire);
    if (number != kUplinkPort)
      delivery_.toPort(*port, view, burst_, frames, from.pair);
    else if (shared_.uplink)
      delivery_.toUplink(*port, view, burst_, frames);
  }
  touched_.clear();
}

}  // namespace vdpa::vswitch
