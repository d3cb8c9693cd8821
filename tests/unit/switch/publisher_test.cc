// Pollers read snapshots without a lock while the control thread replaces them. Run with TSan,
// which detects a snapshot that is freed too early or read half-made.
#include "deviceplugin/datapath/switch/publisher.h"

#include <catch2/catch.hpp>
#include <poll.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "deviceplugin/datapath/switch/snapshot.h"

namespace {

using namespace vdpa;
using namespace vdpa::vswitch;

bool readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return ::poll(&entry, 1, 0) == 1;
}

std::unique_ptr<Snapshot> snapshotOf(size_t ports) {
  auto snapshot = std::make_unique<Snapshot>();
  snapshot->ports.resize(ports);
  for (auto& port : snapshot->ports) port.mac = ports;
  return snapshot;
}

}  // namespace

TEST_CASE("a poller starts with a snapshot of nothing, and is woken by each publication") {
  Publisher publisher(2);
  CHECK(publisher.acquire(0).ports.size() == 1);
  CHECK(publisher.acquire(0).work.size() == 2);
  CHECK_FALSE(readable(publisher.wakeFd(0)));
  const uint64_t first = publisher.publish(snapshotOf(3));
  const uint64_t second = publisher.publish(snapshotOf(4));
  CHECK(second == first + 1);
  for (const unsigned poller : {0u, 1u}) {
    CHECK_FALSE(publisher.seen(second));
    CHECK(readable(publisher.wakeFd(poller)));
    publisher.drain(poller);
    CHECK_FALSE(readable(publisher.wakeFd(poller)));
    CHECK(publisher.acquire(poller).ports.size() == 4);
  }
  CHECK(publisher.seen(second));
  publisher.waitUntilSeen(second);
}

TEST_CASE("snapshots change under pollers that read them all the time") {
  constexpr unsigned kPollers = 3;
  constexpr size_t kPublications = 500;
  Publisher publisher(kPollers);
  publisher.waitUntilSeen(0);
  std::atomic<bool> end{false};
  std::atomic<bool> torn{false};
  std::vector<std::thread> pollers;
  for (unsigned poller = 0; poller < kPollers; ++poller)
    pollers.emplace_back([&, poller] {
      uint64_t last = 0;
      while (!end.load()) {
        const Snapshot& snapshot = publisher.acquire(poller);
        if (snapshot.sequence < last) torn = true;
        last = snapshot.sequence;
        for (const auto& port : snapshot.ports)
          if (last > 0 && port.mac != snapshot.ports.size()) torn = true;
      }
    });
  uint64_t last = 0;
  for (size_t i = 1; i <= kPublications; ++i) {
    last = publisher.publish(snapshotOf(i % 50 + 1));
    if (i % 10 == 0) publisher.waitUntilSeen(last);
  }
  publisher.waitUntilSeen(last);
  end = true;
  for (auto& poller : pollers) poller.join();
  CHECK_FALSE(torn.load());
  CHECK(last == kPublications);
}
