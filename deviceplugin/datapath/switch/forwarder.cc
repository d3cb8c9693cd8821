#include "deviceplugin/datapath/switch/forwarder.h"

#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_prefetch.h>
#include <rte_vhost.h>

#include <cstdint>
#include <cstring>

#include "common/serving_page.h"
#include "deviceplugin/datapath/switch/call_guard.h"
#include "deviceplugin/datapath/switch/counters.h"
#include "deviceplugin/datapath/switch/mac_table.h"
#include "deviceplugin/datapath/switch/snapshot.h"

namespace vdpa::vswitch {
namespace {

// For the two addresses at the start of an Ethernet header only: it reads two octets beyond.
uint64_t macAt(const rte_ether_addr& address) {
  uint64_t octets;
  std::memcpy(&octets, &address, sizeof octets);
  return rte_be_to_cpu_64(octets) >> 16;
}

// The maximum number of frames per call of rte_vhost_enqueue_burst() (MAX_PKT_BURST in DPDK's
// lib/vhost/virtio_net.c).
constexpr uint16_t kEnqueued = 32;

constexpr uint64_t kGroupBit = 1ull << 40;  // of the first octet: multicast or broadcast

bool isTagged(const rte_ether_hdr& header) {
  return header.ether_type == rte_cpu_to_be_16(RTE_ETHER_TYPE_VLAN) ||
         header.ether_type == rte_cpu_to_be_16(RTE_ETHER_TYPE_QINQ);
}

}  // namespace

Forwarder::Forwarder(MacTable& table, unsigned poller, uint16_t uplink, uint16_t uplinkQueue,
                     rte_mempool* pool, CallGuard& guard, ServingPage::Cell& serving)
    : table_(table),
      poller_(poller),
      uplink_(uplink),
      uplinkQueue_(uplinkQueue),
      pool_(pool),
      guard_(guard),
      serving_(serving),
      batches_(MacTable::kMaxPorts),
      memory_(MacTable::kMaxPorts) {
  touched_.reserve(MacTable::kMaxPorts);
}

inline bool Forwarder::spoofed(const PortView& source, uint64_t sender, uint16_t vlan) const {
  if (sender & kGroupBit) return true;
  if (!source.spoofCheck || sender == source.mac) return false;
  return !source.trust || table_.belongsToOther(sender, vlan, source_);
}

// Returns whether a frame may enter, and learns its source. Sets `vlan` to the frame's.
inline bool Forwarder::admit(const PortView& source, rte_mbuf* frame, uint16_t& vlan,
                             uint64_t& destination, uint32_t seconds) {
  Counters& counters = source.counters[poller_];
  const auto* header = rte_pktmbuf_mtod(frame, const rte_ether_hdr*);
  if (frame->data_len < sizeof *header) {
    counters.drop(Drop::runt, 1);
    return false;
  }
  const uint64_t sender = macAt(header->src_addr);
  destination = macAt(header->dst_addr);
  vlan = source.vlan;
  if (isTagged(*header)) {
    // A pod's port is an access port: one VLAN, no tags. Only the uplink is a trunk.
    if (source_ != kUplinkPort || header->ether_type != rte_cpu_to_be_16(RTE_ETHER_TYPE_VLAN) ||
        rte_vlan_strip(frame) != 0) {
      counters.drop(Drop::vlan, 1);
      return false;
    }
    vlan = frame->vlan_tci & 0xfff;
  }
  if (frame->pkt_len > source.maxFrame) {
    counters.drop(Drop::tooLong, 1);
    return false;
  }
  if (spoofed(source, sender, vlan)) {
    counters.drop(Drop::spoofed, 1);
    return false;
  }
  Memory& memory = memory_[source_];
  if (memory.source != sender || memory.learnedAt != seconds || memory.sourceVlan != vlan) {
    table_.learn(sender, vlan, source_, seconds);
    memory.source = sender;
    memory.learnedAt = seconds;
    memory.sourceVlan = vlan;
  }
  return true;
}

inline void Forwarder::add(MacTable::Port port, rte_mbuf* frame) {
  Batch& batch = batches_[port];
  if (batch.count == 0) touched_.push_back(port);
  batch.frames[batch.count++] = frame;
}

void Forwarder::flood(const Snapshot& snapshot, MacTable::Port source, uint16_t vlan,
                      rte_mbuf* frame) {
  for (size_t port = 1; port < snapshot.ports.size(); ++port) {
    const PortView& view = snapshot.ports[port];
    if (view.exists && view.vlan == vlan && port != source)
      add(static_cast<MacTable::Port>(port), frame);
  }
  if (snapshot.uplink && source != kUplinkPort) {
    uplinkVlans_[batches_[kUplinkPort].count] = vlan;
    add(kUplinkPort, frame);
  }
}

void Forwarder::forward(const Snapshot& snapshot, MacTable::Port source, uint16_t queue,
                        rte_mbuf** frames, uint16_t count, uint32_t seconds) {
  const PortView& from = snapshot.ports[source];
  Counters& counters = from.counters[poller_];
  source_ = source;
  if (!from.linkUp) {
    counters.drop(Drop::linkDown, count);
    rte_pktmbuf_free_bulk(frames, count);
    return;
  }
  uint64_t bytes = 0;
  for (uint16_t i = 0; i < count; ++i) rte_prefetch0(rte_pktmbuf_mtod(frames[i], void*));
  Memory& memory = memory_[source];
  const uint32_t changes = table_.changes();
  for (uint16_t i = 0; i < count; ++i) {
    rte_mbuf* frame = frames[i];
    uint16_t vlan = 0;
    uint64_t destination = 0;
    bytes += frame->pkt_len;
    if (!admit(from, frame, vlan, destination, seconds)) continue;
    if (destination & kGroupBit) {
      flood(snapshot, source, vlan, frame);
      continue;
    }
    if (memory.destination != destination || memory.destinationVlan != vlan ||
        memory.lookedUpAt != seconds || memory.changes != changes ||
        memory.port == MacTable::kNoPort) {
      memory.port = table_.lookup(destination, vlan, seconds);
      memory.destination = destination;
      memory.destinationVlan = vlan;
      memory.lookedUpAt = seconds;
      memory.changes = changes;
    }
    const MacTable::Port port = memory.port;
    if (port == source) continue;  // the destination is on the port it came from
    if (port == kUplinkPort && snapshot.uplink) {
      uplinkVlans_[batches_[kUplinkPort].count] = vlan;
      add(port, frame);
    } else if (port < snapshot.ports.size() && port != kUplinkPort && snapshot.ports[port].exists &&
               snapshot.ports[port].vlan == vlan) {
      add(port, frame);
    } else {
      flood(snapshot, source, vlan, frame);
    }
  }
  counters.txPackets.add(count);
  counters.txBytes.add(bytes);
  for (const MacTable::Port port : touched_)
    if (port == kUplinkPort)
      deliverToUplink(snapshot);
    else
      deliver(snapshot, port, queue);
  touched_.clear();
  rte_pktmbuf_free_bulk(frames, count);
}

void Forwarder::deliver(const Snapshot& snapshot, MacTable::Port port, uint16_t queue) {
  const PortView& to = snapshot.ports[port];
  Counters& counters = to.counters[poller_];
  Batch& batch = batches_[port];
  const uint16_t offered = batch.count;
  batch.count = 0;
  if (!to.linkUp) {
    counters.drop(Drop::linkDown, offered);
    return;
  }
  uint16_t fitting = 0;
  uint64_t lengths[kBurst];
  for (uint16_t i = 0; i < offered; ++i) {
    if (batch.frames[i]->pkt_len > to.maxFrame) continue;
    lengths[fitting] = batch.frames[i]->pkt_len;
    batch.frames[fitting++] = batch.frames[i];
  }
  if (fitting < offered) counters.drop(Drop::tooLong, offered - fitting);
  uint16_t sent = 0;
  if (to.vid >= 0 && to.rxQueueCount > 0) {
    const uint16_t ring = to.rxQueues[queue % to.rxQueueCount];
    serving_.begin(port, ring);
    // A call that takes fewer frames than it could means that the ring is full.
    for (uint16_t taken = kEnqueued; taken >= kEnqueued && sent < fitting; sent += taken) {
      if (guard_.left(to.vid)) break;
      taken = rte_vhost_enqueue_burst(to.vid, ring, batch.frames + sent, fitting - sent);
      guard_.check(to.vid);
    }
    serving_.end();
  }
  uint64_t bytes = 0;
  for (uint16_t i = 0; i < sent; ++i) bytes += lengths[i];
  counters.rxPackets.add(sent);
  counters.rxBytes.add(bytes);
  if (sent < fitting) counters.drop(Drop::rxFull, fitting - sent);
}

void Forwarder::deliverToUplink(const Snapshot& snapshot) {
  Counters& counters = snapshot.ports[kUplinkPort].counters[poller_];
  Batch& batch = batches_[kUplinkPort];
  const uint16_t offered = batch.count;
  batch.count = 0;
  rte_mbuf* ready[kBurst];
  uint64_t lengths[kBurst];
  uint16_t count = 0;
  for (uint16_t i = 0; i < offered; ++i) {
    // The uplink gets a copy: a tag changes the frame, which may also go to pods.
    rte_mbuf* copy = rte_pktmbuf_copy(batch.frames[i], pool_, 0, UINT32_MAX);
    if (copy && uplinkVlans_[i] != 0) {
      copy->vlan_tci = uplinkVlans_[i];
      if (rte_vlan_insert(&copy) != 0) {
        rte_pktmbuf_free(copy);
        copy = nullptr;
      }
    }
    if (!copy) {
      counters.drop(Drop::noMemory, 1);
      continue;
    }
    lengths[count] = copy->pkt_len;
    ready[count++] = copy;
  }
  const uint16_t sent = rte_eth_tx_burst(uplink_, uplinkQueue_, ready, count);
  uint64_t bytes = 0;
  for (uint16_t i = 0; i < sent; ++i) bytes += lengths[i];
  counters.rxPackets.add(sent);
  counters.rxBytes.add(bytes);
  if (sent < count) {
    counters.drop(Drop::rxFull, count - sent);
    rte_pktmbuf_free_bulk(ready + sent, count - sent);
  }
}

}  // namespace vdpa::vswitch
