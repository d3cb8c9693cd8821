#include "deviceplugin/datapath/switch/forwarding/mac_table.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>

#include "deviceplugin/datapath/switch/forwarding/keyed_hash.h"

namespace vdpa::vswitch {
namespace {

constexpr uint64_t kValid = 1ull << 60;
constexpr uint32_t kStatic = 0xffffffff;  // in the place of an entry's time

constexpr auto relaxed = std::memory_order_relaxed;

uint64_t makeKey(uint64_t mac, uint16_t vlan) {
  return kValid | (static_cast<uint64_t>(vlan) << 48) | mac;
}
uint64_t makeValue(MacTable::Port port, uint32_t seconds) {
  return (static_cast<uint64_t>(port) << 32) | seconds;
}
MacTable::Port portOf(uint64_t value) {
  return static_cast<MacTable::Port>(value >> 32);
}
uint32_t timeOf(uint64_t value) {
  return static_cast<uint32_t>(value);
}

bool expired(uint64_t value, uint32_t seconds) {
  return timeOf(value) != kStatic && seconds - timeOf(value) > MacTable::kAgeing &&
         seconds > timeOf(value);
}

}  // namespace

MacTable::MacTable(KeyedHash::Secret secret)
    : hash_(secret),
      buckets_(std::make_unique<Bucket[]>(kBuckets)),
      writing_(std::make_unique<std::atomic<bool>[]>(kBuckets)) {
  for (auto& limit : limit_) limit.store(kLearnedPerPort, relaxed);
}

MacTable::Bucket& MacTable::bucketOf(uint64_t key) const {
  static_assert(kBuckets == 1 << (64 - 51));
  return buckets_[hash_(key) >> 51];
}

// A poller doesn't wait for another writer: the next frame repeats the update.
bool MacTable::tryLock(const Bucket& bucket) {
  return !writing_[indexOf(bucket)].exchange(true, std::memory_order_acquire);
}

void MacTable::lock(const Bucket& bucket) {
  while (!tryLock(bucket)) std::this_thread::yield();
}

void MacTable::unlock(const Bucket& bucket) {
  writing_[indexOf(bucket)].store(false, std::memory_order_release);
}

void MacTable::learn(uint64_t mac, uint16_t vlan, Port port, uint32_t seconds) {
  const uint64_t key = makeKey(mac, vlan);
  Bucket& bucket = bucketOf(key);
  const uint64_t news = makeValue(port, seconds);
  for (size_t way = 0; way < kWays; ++way)
    if (bucket.key[way].load(relaxed) == key) {
      const uint64_t known = bucket.value[way].load(relaxed);
      if (known == news || timeOf(known) == kStatic) return;  // as with most frames
    }
  if (!tryLock(bucket)) return;
  note(bucket, key, news, seconds);
  unlock(bucket);
}

void MacTable::note(Bucket& bucket, uint64_t key, uint64_t news, uint32_t seconds) {
  const Port port = portOf(news);
  const bool full = learned_[port].load(relaxed) >= limit_[port].load(relaxed);
  size_t free = kWays;
  for (size_t way = 0; way < kWays; ++way) {
    const uint64_t there = bucket.key[way].load(relaxed);
    const uint64_t value = bucket.value[way].load(relaxed);
    if (there == key) {
      if (timeOf(value) == kStatic) return;
      if (portOf(value) != port) {
        if (full) return;
        learned_[portOf(value)].fetch_sub(1, relaxed);
        learned_[port].fetch_add(1, relaxed);
      }
      bucket.value[way].store(news, relaxed);
      if (portOf(value) != port) changes_.fetch_add(1, std::memory_order_release);
      return;
    }
    if (free == kWays && (there == 0 || expired(value, seconds))) free = way;
  }
  if (free == kWays) return;
  // An expired address of the same port makes room for the new one.
  const bool replacesOwn =
      bucket.key[free].load(relaxed) != 0 && portOf(bucket.value[free].load(relaxed)) == port;
  if (full && !replacesOwn) return;
  drop(bucket, free);
  learned_[port].fetch_add(1, relaxed);
  bucket.value[free].store(news, relaxed);
  bucket.key[free].store(key, std::memory_order_release);
}

MacTable::Port MacTable::lookup(uint64_t mac, uint16_t vlan, uint32_t seconds) const {
  const uint64_t key = makeKey(mac, vlan);
  const Bucket& bucket = bucketOf(key);
  for (size_t way = 0; way < kWays; ++way) {
    if (bucket.key[way].load(std::memory_order_acquire) != key) continue;
    const uint64_t value = bucket.value[way].load(relaxed);
    return expired(value, seconds) ? kNoPort : portOf(value);
  }
  return kNoPort;
}

bool MacTable::belongsToOther(uint64_t mac, uint16_t vlan, Port port) const {
  const uint64_t key = makeKey(mac, vlan);
  const Bucket& bucket = bucketOf(key);
  for (size_t way = 0; way < kWays; ++way) {
    if (bucket.key[way].load(std::memory_order_acquire) != key) continue;
    const uint64_t value = bucket.value[way].load(relaxed);
    return timeOf(value) == kStatic && portOf(value) != port;
  }
  return false;
}

void MacTable::addStatic(uint64_t mac, uint16_t vlan, Port port) {
  const uint64_t key = makeKey(mac, vlan);
  Bucket& bucket = bucketOf(key);
  lock(bucket);
  size_t place = kWays;
  for (size_t way = 0; way < kWays; ++way) {
    const uint64_t there = bucket.key[way].load(relaxed);
    if (there == key) {
      place = way;
      break;
    }
    // Prefers an empty place to a learned address, and never replaces another static one.
    if (there != 0 && timeOf(bucket.value[way].load(relaxed)) == kStatic) continue;
    if (place == kWays || (there == 0 && bucket.key[place].load(relaxed) != 0)) place = way;
  }
  if (place == kWays) return unlock(bucket);
  drop(bucket, place);
  bucket.value[place].store(makeValue(port, kStatic), relaxed);
  bucket.key[place].store(key, std::memory_order_release);
  changes_.fetch_add(1, std::memory_order_release);
  unlock(bucket);
}

void MacTable::removePort(Port port) {
  for (size_t i = 0; i < kBuckets; ++i) {
    lock(buckets_[i]);
    for (size_t way = 0; way < kWays; ++way)
      if (buckets_[i].key[way].load(relaxed) != 0 &&
          portOf(buckets_[i].value[way].load(relaxed)) == port)
        drop(buckets_[i], way);
    unlock(buckets_[i]);
  }
}

void MacTable::setLimit(Port port, uint32_t learned) {
  limit_[port].store(learned, relaxed);
}

void MacTable::drop(Bucket& bucket, size_t way) {
  if (bucket.key[way].exchange(0, relaxed) == 0) return;
  const uint64_t value = bucket.value[way].load(relaxed);
  if (timeOf(value) != kStatic) learned_[portOf(value)].fetch_sub(1, relaxed);
  changes_.fetch_add(1, std::memory_order_release);
}

}  // namespace vdpa::vswitch
