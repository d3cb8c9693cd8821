// Pods with rings of their own, and what a poller needs around them, without threads or processes.
#pragma once

#include <sys/eventfd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/serving_page.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/forwarding/cpu_time.h"
#include "deviceplugin/datapath/switch/forwarding/epoch.h"
#include "deviceplugin/datapath/switch/forwarding/fair_share.h"
#include "deviceplugin/datapath/switch/forwarding/forwarder.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/memo.h"
#include "deviceplugin/datapath/switch/forwarding/notifier.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/guest_access.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "tests/unit/virtqueue/driver.h"

namespace vdpa::vswitch::test {

using Bytes = std::vector<std::byte>;
using virtqueue::Direction;
using virtqueue::kHeaderSize;
using virtqueue::NetHeader;
using virtqueue::test::Element;

constexpr uint64_t kHz = 2'000'000'000;
constexpr uint64_t kBroadcast = 0xffffffffffff;

inline uint64_t macOf(unsigned port) {
  return 0x020000000000 + port;
}

// A frame of `length` bytes, with a tag if `vlan` is given; what is behind the header counts up.
inline Bytes frame(uint64_t to, uint64_t from, size_t length = 60,
                   std::optional<uint16_t> vlan = {}) {
  Bytes bytes(length);
  for (size_t i = 0; i < length; ++i) bytes[i] = static_cast<std::byte>(i * 3);
  for (size_t i = 0; i < 6 && i + 6 < length; ++i) {
    bytes[i] = static_cast<std::byte>(to >> (40 - 8 * i));
    bytes[i + 6] = static_cast<std::byte>(from >> (40 - 8 * i));
  }
  if (length >= 14) bytes[12] = std::byte{8}, bytes[13] = std::byte{0};
  if (vlan) {
    const std::byte tag[] = {std::byte{0x81}, std::byte{0}, static_cast<std::byte>(*vlan >> 8),
                             static_cast<std::byte>(*vlan)};
    bytes.insert(bytes.begin() + 12, std::begin(tag), std::end(tag));
  }
  return bytes;
}

inline Bytes tagged(Bytes bytes, uint16_t vlan) {
  const std::byte tag[] = {std::byte{0x81}, std::byte{0}, static_cast<std::byte>(vlan >> 8),
                           static_cast<std::byte>(vlan)};
  bytes.insert(bytes.begin() + 12, std::begin(tag), std::end(tag));
  return bytes;
}

struct Received {
  Bytes frame;
  NetHeader header;
};

// A port and the pod behind it: one ring to send, one to receive.
template <typename Driver>
class Pod {
 public:
  static constexpr uint32_t kRingSize = 128;
  static constexpr uint32_t kBufferSize = 2048;

  explicit Pod(MacTable::Port number, unsigned pollers = 1)
      : guest(2 << 20), sends(guest, kRingSize), receives(guest, kRingSize) {
    port.number = number;
    port.id = "pod-" + std::to_string(number);
    port.counters = std::vector<Counters>(pollers);
    view.linkUp = true;
    view.maxFrame = 1514;
    view.mac = macOf(number);
    connect();
    view.receiveCount = 1;
    view.receive[0] = receive.get();
    port.view = &view;
    sends.noCalls();
    receives.noCalls();
    buffers.resize(kRingSize);
    memory = guest.allocate(kRingSize * kBufferSize);
  }
  // New queues in the pod's rings, as after a new connection.
  void connect() {
    transmit.reset(new TransmitQueue{
        {sends.connect(Direction::kTransmit), &port, 1, -1, {}, {}, Offloads::kNone}});
    receive.reset(new ReceiveQueue{
        {receives.connect(Direction::kReceive), &port, 0, -1, {}, {}, Offloads::kNone}, {}});
    receive->format.mergeable = true;
  }

  // In one buffer, or with the header and each part in one of its own. False: no room.
  bool send(const Bytes& frame, const NetHeader& header = {}, size_t pieces = 1) {
    while (sends.take()) {
    }
    if (sends.room() < pieces) return false;
    const uint64_t at = memory + kBufferSize * (sent_++ % kRingSize);
    std::memcpy(guest.at(at), &header, kHeaderSize);
    virtqueue::copyBytes(guest.at(at + kHeaderSize), frame.data(), frame.size());
    std::vector<Element> elements;
    const auto total = static_cast<uint32_t>(kHeaderSize + frame.size());
    uint32_t done = 0;
    for (size_t i = 0; i + 1 < pieces; ++i) {
      const uint32_t part = i == 0 ? kHeaderSize : 1;
      elements.push_back({at + done, part});
      done += part;
    }
    elements.push_back({at + done, total - done});
    return sends.add(elements);
  }
  // Makes buffers available in which it receives.
  void post(size_t count = kRingSize, uint32_t size = kBufferSize) {
    for (size_t i = 0; i < count; ++i) {
      const uint64_t at = guest.allocate(size);
      if (!receives.add({at, size, true})) return;
      buffers.at(receives.lastId()) = {at, size};
    }
  }
  std::vector<Received> received() {
    std::vector<Received> frames;
    while (auto used = receives.take()) {
      const Element& buffer = buffers.at(used->id);
      Received got;
      virtqueue::copyBytes(reinterpret_cast<std::byte*>(&got.header), guest.at(buffer.address),
                           kHeaderSize);
      got.frame.resize(used->written - kHeaderSize);
      virtqueue::copyBytes(got.frame.data(), guest.at(buffer.address + kHeaderSize),
                           got.frame.size());
      frames.push_back(std::move(got));
      receives.add({buffer.address, buffer.length, true});
      buffers.at(receives.lastId()) = {buffer.address, buffer.length};
    }
    return frames;
  }
  // The next frame's bytes; empty: there is none.
  Bytes next() {
    if (got_.empty()) {
      got_ = received();
    }
    if (got_.empty()) return {};
    Bytes bytes = std::move(got_.front().frame);
    got_.erase(got_.begin());
    return bytes;
  }
  uint64_t drops(Drop reason) const {
    uint64_t sum = 0;
    for (const auto& counters : port.counters)
      sum += counters.drops[static_cast<size_t>(reason)].get();
    return sum;
  }
  uint64_t drops() const {
    uint64_t sum = 0;
    for (size_t reason = 0; reason < kDrops; ++reason) sum += drops(static_cast<Drop>(reason));
    return sum;
  }

  virtqueue::test::Guest guest;
  Driver sends, receives;
  Port port;
  PortView view;
  std::unique_ptr<TransmitQueue> transmit;
  std::unique_ptr<ReceiveQueue> receive;
  Memo memo;
  uint64_t memory = 0;
  std::vector<Element> buffers;  // by ID

 private:
  size_t sent_ = 0;
  std::vector<Received> got_;
};

// A switch with one forwarder, driven by hand.
template <typename Driver>
class Bench {
 public:
  explicit Bench(unsigned ports, Uplink* uplink = nullptr)
      : serving("/tmp/vdpa-forwarding-test", 1, ports + 1),
        cpu(kHz),
        share(kHz),
        notifier(offences, share, cpu, kHz),
        forwarder(0, {table, macs, offences, uplink}, notifier, serving.cell(0)) {
    uplinkPort.counters = std::vector<Counters>(1);
    uplinkView.linkUp = true;
    uplinkView.maxFrame = 1514;
    uplinkPort.view = &uplinkView;
    if (uplink) table.add(uplinkPort);
    for (unsigned i = 1; i <= ports; ++i) {
      pods.push_back(std::make_unique<Pod<Driver>>(static_cast<MacTable::Port>(i)));
      table.add(pods.back()->port);
      pods.back()->post();
    }
    setMembers();
  }
  // The lists of frames to all, from the ports' views.
  void setMembers() {
    for (uint16_t vlan = 0; vlan < 4096; ++vlan) {
      std::vector<Port*> members;
      for (auto& pod : pods)
        if (isMember(pod->view, vlan)) members.push_back(&pod->port);
      if (!members.empty() || table.members(vlan))
        table.setMembers(vlan, std::make_unique<const std::vector<Port*>>(std::move(members)));
    }
    ++time.generation;
  }
  Pod<Driver>& pod(unsigned number) { return *pods.at(number - 1); }
  size_t serve(unsigned number, size_t most = Burst::kMaxFrames) {
    auto& pod = this->pod(number);
    return forwarder.serve(*pod.transmit, pod.view, pod.memo, most, time);
  }
  // Sends it and forwards it.
  void send(unsigned number, const Bytes& frame, const NetHeader& header = {}, size_t pieces = 1) {
    if (!pod(number).send(frame, header, pieces)) throw std::logic_error("the ring is full");
    serve(number);
  }

  PortTable table;
  MacTable macs;
  Offences offences;
  ServingPage serving;
  CpuTime cpu;
  FairShare share;
  Notifier notifier;
  Forwarder forwarder;
  Forwarder::Time time{kHz, 1, 1};
  Port uplinkPort;
  PortView uplinkView;
  Memo uplinkMemo;
  std::vector<std::unique_ptr<Pod<Driver>>> pods;
};

}  // namespace vdpa::vswitch::test
