// The forwarding table: learning, forgetting and refusing, with one thread and with several.
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"

#include <catch2/catch.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "deviceplugin/datapath/switch/forwarding/keyed_hash.h"

namespace {

using vdpa::vswitch::KeyedHash;
using vdpa::vswitch::MacTable;

constexpr uint64_t kMac = 0x020000000001;
constexpr MacTable::Port kA = 1, kB = 2, kC = 3;

constexpr KeyedHash::Secret kSecret{0x0123456789abcdef, 0xfedcba9876543210};

uint64_t keyOf(uint64_t mac, uint64_t vlan) {
  return 1ull << 60 | vlan << 48 | mac;
}

// Addresses of a VLAN in the bucket that `hash` has for kMac of VLAN 0. Each group of a few shows
// whether kMac got a place.
std::vector<uint64_t> sharingABucket(size_t count, uint64_t vlan,
                                     const std::function<uint64_t(uint64_t)>& hash) {
  std::vector<uint64_t> macs;
  for (uint64_t mac = kMac; macs.size() < count; ++mac)
    if (hash(keyOf(mac, vlan)) >> 51 == hash(keyOf(kMac, 0)) >> 51) macs.push_back(mac);
  return macs;
}

std::vector<uint64_t> sharingABucket(size_t count) {
  return sharingABucket(count, 0, KeyedHash(kSecret));
}

// Whether kMac of VLAN 0 is learned after these of VLAN 10.
bool learnedBehind(const std::vector<uint64_t>& macs, MacTable& table) {
  for (const uint64_t mac : macs) table.learn(mac, 10, kA, 1);
  table.learn(kMac, 0, kB, 1);
  return table.lookup(kMac, 0, 1) == kB;
}

}  // namespace

TEST_CASE("an address is where it was last seen") {
  MacTable table;
  CHECK(table.lookup(kMac, 0, 1) == MacTable::kNoPort);
  table.learn(kMac, 0, kA, 1);
  CHECK(table.lookup(kMac, 0, 1) == kA);
  CHECK(table.lookup(kMac + 1, 0, 1) == MacTable::kNoPort);
  table.learn(kMac, 0, kB, 2);
  CHECK(table.lookup(kMac, 0, 2) == kB);
  CHECK(table.learnedOn(kA) == 0);
  CHECK(table.learnedOn(kB) == 1);
}

TEST_CASE("whoever remembers a port hears when an address leaves it") {
  MacTable table;
  auto changed = [&, last = table.changes()]() mutable {
    return std::exchange(last, table.changes()) != table.changes();
  };
  table.learn(kMac, 0, kA, 1);
  changed();
  table.learn(kMac, 0, kA, 2);
  table.learn(kMac + 1, 0, kB, 2);
  CHECK_FALSE(changed());
  table.learn(kMac, 0, kB, 3);
  CHECK(changed());
  table.addStatic(kMac, 0, kC);
  CHECK(changed());
  table.removePort(kC);
  CHECK(changed());
}

TEST_CASE("VLANs know nothing of each other") {
  MacTable table;
  table.learn(kMac, 10, kA, 1);
  CHECK(table.lookup(kMac, 10, 1) == kA);
  CHECK(table.lookup(kMac, 0, 1) == MacTable::kNoPort);
  for (const uint16_t vlan : {20, 10 + 256, 10 + 2048})
    CHECK(table.lookup(kMac, vlan, 1) == MacTable::kNoPort);
  table.learn(kMac, 20, kB, 1);
  CHECK(table.lookup(kMac, 10, 1) == kA);
  CHECK(table.lookup(kMac, 20, 1) == kB);
}

TEST_CASE("one VLAN's addresses can't be chosen to keep another's station from being learned") {
  // Those that share a bucket under a well-known hash: the golden ratio's.
  const auto known =
      sharingABucket(8, 10, [](uint64_t key) { return key * 0x9e3779b97f4a7c15ull; });
  MacTable table;
  CHECK(learnedBehind(known, table));
}

TEST_CASE("addresses that share a bucket under one secret don't under another") {
  const auto found = sharingABucket(8, 10, KeyedHash(kSecret));
  MacTable same(kSecret);
  CHECK_FALSE(learnedBehind(found, same));
  // Both halves of the secret matter.
  MacTable first({kSecret.first + 1, kSecret.second});
  CHECK(learnedBehind(found, first));
  MacTable second({kSecret.first, kSecret.second + 2});
  CHECK(learnedBehind(found, second));
}

TEST_CASE("a start's secret is its own") {
  const auto one = KeyedHash::randomSecret(), other = KeyedHash::randomSecret();
  CHECK(one.first != other.first);
  CHECK(one.second != other.second);
  CHECK(one.first != one.second);
}

TEST_CASE("addresses that differ in a few bits find places") {
  MacTable table(kSecret);
  table.setLimit(kA, MacTable::kLearnedOnUplink);
  const uint64_t shift = GENERATE(0u, 8u, 16u, 24u, 28u);
  size_t known = 0;
  for (uint64_t i = 0; i < 4096; ++i) {
    const uint64_t mac = kMac ^ i << shift;
    table.learn(mac, 0, kA, 1);
    known += table.lookup(mac, 0, 1) == kA;
  }
  CHECK(known == 4096);
}

TEST_CASE("an address not heard of for too long is unknown") {
  MacTable table;
  table.learn(kMac, 0, kA, 1000);
  CHECK(table.lookup(kMac, 0, 1000 + MacTable::kAgeing) == kA);
  CHECK(table.lookup(kMac, 0, 1001 + MacTable::kAgeing) == MacTable::kNoPort);
  table.learn(kMac, 0, kA, 1200);
  CHECK(table.lookup(kMac, 0, 1001 + MacTable::kAgeing) == kA);
  CHECK(table.learnedOn(kA) == 1);
}

TEST_CASE("a static address stays: it neither moves nor ages nor counts") {
  MacTable table;
  table.addStatic(kMac, 0, kA);
  table.learn(kMac, 0, kB, 1);
  CHECK(table.lookup(kMac, 0, 1) == kA);
  CHECK(table.lookup(kMac, 0, 1000000) == kA);
  CHECK(table.learnedOn(kA) == 0);
  CHECK(table.learnedOn(kB) == 0);

  table.learn(kMac + 1, 0, kB, 1);
  table.addStatic(kMac + 1, 0, kA);  // a port gets an address that another port had learned
  CHECK(table.lookup(kMac + 1, 0, 1) == kA);
  CHECK(table.learnedOn(kB) == 0);
}

TEST_CASE("a port fills no more than its share") {
  MacTable table;
  table.learn(kMac, 0, kB, 1);
  for (uint64_t i = 0; i < 4 * MacTable::kLearnedPerPort; ++i)
    table.learn(0x0a0000000000 + i, 0, kA, 1);
  CHECK(table.learnedOn(kA) == MacTable::kLearnedPerPort);
  size_t known = 0;
  for (uint64_t i = 0; i < 4 * MacTable::kLearnedPerPort; ++i)
    known += table.lookup(0x0a0000000000 + i, 0, 1) == kA;
  CHECK(known == MacTable::kLearnedPerPort);

  table.learn(kMac, 0, kA, 1);  // nor can it take another port's address
  CHECK(table.lookup(kMac, 0, 1) == kB);
  table.learn(kMac + 1, 0, kB, 1);
  CHECK(table.lookup(kMac + 1, 0, 1) == kB);

  table.setLimit(kA, MacTable::kLearnedPerPort + 1);
  table.learn(kMac + 2, 0, kA, 1);
  CHECK(table.lookup(kMac + 2, 0, 1) == kA);
}

TEST_CASE("a full port's own aged address makes room for a new one") {
  MacTable table(kSecret);
  table.setLimit(kA, 1);
  const auto macs = sharingABucket(2);
  table.learn(macs[0], 0, kA, 1);
  table.learn(macs[1], 0, kA, 2);
  CHECK(table.lookup(macs[1], 0, 2) == MacTable::kNoPort);
  const uint32_t later = 2 + MacTable::kAgeing;
  table.learn(macs[1], 0, kA, later);
  CHECK(table.lookup(macs[1], 0, later) == kA);
  CHECK(table.learnedOn(kA) == 1);
}

TEST_CASE("a full bucket keeps what it has, but for aged and static addresses") {
  MacTable table(kSecret);
  const auto macs = sharingABucket(10);
  for (size_t i = 0; i < 8; ++i) table.learn(macs[i], 0, kA, static_cast<uint32_t>(1 + i));
  table.learn(macs[8], 0, kB, 10);
  CHECK(table.lookup(macs[8], 0, 10) == MacTable::kNoPort);
  CHECK(table.learnedOn(kB) == 0);
  for (size_t i = 0; i < 8; ++i) CHECK(table.lookup(macs[i], 0, 10) == kA);

  const uint32_t later = 2 + MacTable::kAgeing;  // only the first has aged
  table.learn(macs[8], 0, kB, later);
  CHECK(table.lookup(macs[8], 0, later) == kB);
  CHECK(table.lookup(macs[0], 0, later) == MacTable::kNoPort);
  CHECK(table.lookup(macs[1], 0, later) == kA);
  CHECK(table.learnedOn(kA) == 7);

  table.addStatic(macs[9], 0, kC);
  CHECK(table.lookup(macs[9], 0, later) == kC);
  CHECK(table.learnedOn(kA) + table.learnedOn(kB) == 7);
}

TEST_CASE("a static address never takes another's place") {
  MacTable table(kSecret);
  const auto macs = sharingABucket(10);
  for (size_t i = 0; i < 8; ++i) table.addStatic(macs[i], 0, kA);
  table.addStatic(macs[8], 0, kB);  // flooded, as an unknown address
  CHECK(table.lookup(macs[8], 0, 1) == MacTable::kNoPort);
  for (size_t i = 0; i < 8; ++i) CHECK(table.lookup(macs[i], 0, 1) == kA);
  table.addStatic(macs[3], 0, kB);
  CHECK(table.lookup(macs[3], 0, 1) == kB);
}

TEST_CASE("nothing is left of a removed port") {
  MacTable table;
  table.addStatic(kMac, 0, kA);
  for (uint64_t i = 1; i <= 50; ++i) table.learn(kMac + i, 0, kA, 1);
  table.learn(kMac + 51, 0, kB, 1);
  table.removePort(kA);
  for (uint64_t i = 0; i <= 50; ++i) CHECK(table.lookup(kMac + i, 0, 1) == MacTable::kNoPort);
  CHECK(table.learnedOn(kA) == 0);
  CHECK(table.lookup(kMac + 51, 0, 1) == kB);
  table.learn(kMac, 0, kB, 1);  // no port's own any more
  CHECK(table.lookup(kMac, 0, 1) == kB);
}

TEST_CASE("threads that learn, look up, add and remove leave exact counts") {
  MacTable table(kSecret);
  const auto macs = sharingABucket(12);  // more than the bucket holds, so that they compete for it
  constexpr uint64_t kOwn = 0x0e0000000000;
  std::atomic<bool> stop{false}, wrong{false};
  std::vector<std::thread> threads;
  for (const MacTable::Port port : {kA, kB})
    threads.emplace_back([&, port] {
      for (uint32_t round = 0; round < 100000; ++round)
        table.learn(macs[round % macs.size()], 0, port, 1 + round / 100);
    });
  threads.emplace_back([&] {
    for (int round = 0; round < 200; ++round) {
      table.addStatic(macs[11], 0, kC);
      if (table.lookup(macs[11], 0, 1) != kC) wrong = true;
      table.removePort(kC);
    }
  });
  table.addStatic(kOwn, 0, kC + 1);
  std::thread reader([&] {
    while (!stop) {
      if (table.lookup(kOwn, 0, 1) != kC + 1) wrong = true;
      for (const uint64_t mac : macs) {
        const MacTable::Port port = table.lookup(mac, 0, 1);
        if (port != MacTable::kNoPort && port > kC) wrong = true;
      }
    }
  });
  for (auto& thread : threads) thread.join();
  stop = true;
  reader.join();
  CHECK_FALSE(wrong);

  size_t onA = 0, onB = 0;
  for (const uint64_t mac : macs) {
    const MacTable::Port port = table.lookup(mac, 0, 1);
    onA += port == kA;
    onB += port == kB;
  }
  CHECK(table.learnedOn(kA) == onA);
  CHECK(table.learnedOn(kB) == onB);
  CHECK(onA + onB >= 7);  // one place may have been the static address's
  table.removePort(kA);
  table.removePort(kB);
  CHECK(table.learnedOn(kA) == 0);
  CHECK(table.learnedOn(kB) == 0);
}
