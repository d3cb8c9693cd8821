// Several threads deliver into one ring: only reserve() and publish() are under its lock.
#include <catch2/catch.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/receive.h"
#include "tests/unit/virtqueue/driver.h"

using namespace vdpa::virtqueue;
using namespace vdpa::virtqueue::test;

namespace {

constexpr uint32_t kSenders = 3;
constexpr uint32_t kPackets = 3000;  // of each
constexpr NetFormat kFormat{.headerSize = kHeaderSize, .mergeable = true};

struct Packet {
  uint32_t sender, number;
  uint32_t length() const { return 20 + number * 37 % 700; }
  std::vector<std::byte> bytes() const {
    std::vector<std::byte> bytes(length(), static_cast<std::byte>(number + sender));
    std::memcpy(bytes.data(), this, sizeof *this);
    return bytes;
  }
};

template <typename Ring>
void send(Ring& ring, std::mutex& lock, std::atomic<uint32_t>& sent, uint32_t sender) {
  auto list = std::make_unique<BufferList>();
  for (uint32_t number = 0; number < kPackets;) {
    std::vector<std::vector<std::byte>> packets;
    std::vector<uint32_t> lengths;
    for (uint32_t i = number; i < kPackets && i < number + 1 + sender * 2; ++i) {
      packets.push_back(Packet{sender, i}.bytes());
      lengths.push_back(static_cast<uint32_t>(packets.back().size()));
    }
    std::vector<Place> places(packets.size());
    Lease lease;
    {
      const std::lock_guard guard(lock);
      reserve(ring, kFormat, lengths, places, *list, lease);
    }
    uint32_t delivered = 0;  // the ring may be full
    for (size_t i = 0; i < packets.size(); ++i)
      if (places[i].room == Place::Room::kFound) {
        write(*list, places[i], kFormat, {}, frameOf(packets[i].data(), lengths[i]));
        ++delivered;
      }
    ring.fill(lease, *list);
    {
      const std::lock_guard guard(lock);
      ring.publish(lease);
    }
    sent += delivered;
    number += static_cast<uint32_t>(packets.size());
    if (lease.count < packets.size()) std::this_thread::yield();
  }
}

}  // namespace

TEMPLATE_TEST_CASE("Senders share a ring", "", SplitDriver, PackedDriver) {
  Guest guest;
  TestType driver(guest, 64);
  auto ring = driver.connect(Direction::kReceive);
  std::map<uint16_t, uint64_t> posted;
  const auto post = [&](uint64_t address) {
    REQUIRE(driver.add({address, 256, true}));
    posted[driver.lastId()] = address;
  };
  for (int i = 0; i < 64; ++i) post(guest.allocate(256));

  std::mutex lock;
  std::vector<std::thread> senders;
  std::atomic<uint32_t> sent{0}, running{kSenders};
  for (uint32_t i = 0; i < kSenders; ++i)
    senders.emplace_back([&, i] {
      send(ring, lock, sent, i);
      --running;
    });

  std::vector<uint32_t> next(kSenders, 0);  // no packet of a sender overtakes another
  uint32_t received = 0;
  bool right = true;
  while (running > 0 || received < sent) {
    auto used = driver.take();
    if (!used) {
      std::this_thread::yield();
      continue;
    }
    NetHeader header;
    std::memcpy(&header, guest.at(posted.at(used->id)), sizeof header);
    std::vector<std::byte> bytes;
    for (uint16_t i = 0; i < header.buffers; ++i) {
      // All buffers of a packet are used together (5.1.6.4.1).
      if (i > 0) used = driver.take();
      REQUIRE(used.has_value());
      const uint64_t address = posted.at(used->id);
      const auto piece = guest.bytes(address, used->written);
      bytes.insert(bytes.end(), piece.begin(), piece.end());
      post(address);
    }
    bytes.erase(bytes.begin(), bytes.begin() + kHeaderSize);
    Packet packet{};
    std::memcpy(&packet, bytes.data(), sizeof packet);
    right = right && packet.number >= next.at(packet.sender) && bytes == packet.bytes();
    next[packet.sender] = packet.number + 1;
    ++received;
  }
  for (std::thread& sender : senders) sender.join();
  CHECK(right);
  CHECK(received == sent);
  CHECK(received > 0);
  CHECK_FALSE(ring.fault());
}
