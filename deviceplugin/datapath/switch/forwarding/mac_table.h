// The switch's forwarding table: the port of each station in each VLAN. Shared by the polling
// threads, none of which ever waits.
//
// It has a fixed number of entries in buckets; an entry is two atomic words. If two pollers write
// to a bucket at once, one of them gives up: its update is lost, and the next frame repeats it. A
// reader may see a key together with the port of the entry that it replaces, so the forwarder
// checks that the port is in the frame's VLAN.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "common/mac_address.h"
#include "deviceplugin/datapath/switch/forwarding/keyed_hash.h"

namespace vdpa::vswitch {

// An address for the table and the pollers: in the low 48 bits, first octet highest.
constexpr uint64_t packed(const MacAddress& mac) {
  uint64_t bits = 0;
  for (const uint8_t octet : mac.bytes()) bits = bits << 8 | octet;
  return bits;
}

class MacTable {
 public:
  using Port = uint16_t;
  static constexpr Port kNoPort = 0xffff;
  // The uplink's, 4,096 of pods, and some for ports that are being removed.
  static constexpr Port kMaxPorts = 4160;
  static constexpr uint32_t kAgeing = 300;  // seconds without a frame (IEEE 802.1Q's default)
  // Limits on learned addresses, so that a pod that invents some can't displace others'.
  static constexpr uint32_t kLearnedPerPort = 128;
  static constexpr uint32_t kLearnedOnUplink = 8192;

  explicit MacTable(KeyedHash::Secret secret = KeyedHash::randomSecret());

  // `mac` is packed(). `seconds` is any monotonic clock.
  // Records that `mac` was seen on `port`. A static address stays where it is.
  void learn(uint64_t mac, uint16_t vlan, Port port, uint32_t seconds);
  // Returns kNoPort if it is unknown or expired.
  Port lookup(uint64_t mac, uint16_t vlan, uint32_t seconds) const;
  // Whether it is the static address of another port.
  bool belongsToOther(uint64_t mac, uint16_t vlan, Port port) const;
  // Changes whenever an address leaves its port: until then a result of lookup() may be reused.
  uint32_t changes() const { return changes_.load(std::memory_order_acquire); }

  // Adds an address that only this port has; if its bucket is full of static ones, frames to it are
  // flooded. Only one thread at a time may call these three.
  void addStatic(uint64_t mac, uint16_t vlan, Port port);
  void removePort(Port port);  // removes all its entries
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
  // These two need the bucket locked.
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
