// Where each station of each VLAN is: the switch's forwarding table, shared by its polling threads,
// none of which ever waits.
//
// A fixed number of entries in buckets, each entry two atomic words. Of two pollers that write to a
// bucket one goes on: then one of two true statements about the network is lost, and the next frame
// repeats it. A reader can meet a key with the port of the entry before it, so whoever forwards
// checks that the port is in the frame's VLAN.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "deviceplugin/datapath/switch/keyed_hash.h"

namespace vdpa::vswitch {

class MacTable {
 public:
  using Port = uint16_t;
  static constexpr Port kNoPort = 0xffff;
  static constexpr Port kMaxPorts = 1026;
  static constexpr uint32_t kAgeing = 300;  // seconds without a frame (IEEE 802.1Q's default)
  // What one port may fill: a pod that makes up addresses crowds out nobody.
  static constexpr uint32_t kLearnedPerPort = 128;
  static constexpr uint32_t kLearnedOnUplink = 8192;

  explicit MacTable(KeyedHash::Secret secret = KeyedHash::randomSecret());

  // `mac` in the low 48 bits, first octet highest. `seconds` is any clock that doesn't go back.
  // Notes that `mac` was seen on `port`. A static address stays where it is.
  void learn(uint64_t mac, uint16_t vlan, Port port, uint32_t seconds);
  // kNoPort: unknown, or not heard of for too long.
  Port lookup(uint64_t mac, uint16_t vlan, uint32_t seconds) const;
  // Whether it is the static address of another port.
  bool belongsToOther(uint64_t mac, uint16_t vlan, Port port) const;
  // Changes whenever an address that was somewhere is no longer there: until then a port that
  // lookup() gave may be used again.
  uint32_t changes() const { return changes_.load(std::memory_order_acquire); }

  // An address that only this port has; if its bucket is full of such, frames to it are flooded.
  // One thread at a time calls these three.
  void addStatic(uint64_t mac, uint16_t vlan, Port port);
  void removePort(Port port);  // all its entries
  void setLimit(Port port, uint32_t learned);

  size_t learnedOn(Port port) const { return learned_[port].load(std::memory_order_relaxed); }

 private:
  static constexpr size_t kWays = 8;
  static constexpr size_t kBuckets = 8192;

  struct Bucket {
    std::array<std::atomic<uint64_t>, kWays> key{};    // 0: empty
    std::array<std::atomic<uint64_t>, kWays> value{};  // port and time
  };

  Bucket& bucketOf(uint64_t key) const;
  size_t indexOf(const Bucket& bucket) const {
    return static_cast<size_t>(&bucket - buckets_.get());
  }
  bool tryLock(const Bucket& bucket);
  void lock(const Bucket& bucket);
  void unlock(const Bucket& bucket);
  // These two: the bucket is locked.
  void note(Bucket& bucket, uint64_t key, uint64_t news, uint32_t seconds);
  void drop(Bucket& bucket, size_t way);

  const KeyedHash hash_;
  std::unique_ptr<Bucket[]> buckets_;
  std::unique_ptr<std::atomic<bool>[]> writing_;  // by bucket
  std::atomic<uint32_t> changes_{0};
  std::array<std::atomic<uint32_t>, kMaxPorts> learned_{};
  std::array<std::atomic<uint32_t>, kMaxPorts> limit_{};
};

}  // namespace vdpa::vswitch
