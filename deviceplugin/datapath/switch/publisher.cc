#include "deviceplugin/datapath/switch/publisher.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>

#include "common/errors.h"
#include "common/mutex.h"
#include "deviceplugin/datapath/switch/snapshot.h"

namespace vdpa::vswitch {

Publisher::Publisher(unsigned pollers) : readers_(pollers) {
  for (auto& reader : readers_)
    reader.wake =
        UniqueFd(checked(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "cannot create an eventfd"));
  auto empty = std::make_unique<Snapshot>();
  empty->ports.resize(1);
  empty->work.resize(pollers);
  current_.store(empty.get());
  kept_.push_back(std::move(empty));
}

uint64_t Publisher::publish(std::unique_ptr<Snapshot> next) {
  Lock lock(mutex_);
  const uint64_t sequence = kept_.back()->sequence + 1;
  next->sequence = sequence;
  current_.store(next.get(), std::memory_order_seq_cst);
  kept_.push_back(std::move(next));
  const uint64_t oldest = oldestSeen();
  std::erase_if(kept_, [&](const auto& snapshot) { return snapshot->sequence < oldest; });
  for (auto& reader : readers_) ::eventfd_write(reader.wake.get(), 1);
  return sequence;
}

uint64_t Publisher::oldestSeen() const {
  uint64_t oldest = UINT64_MAX;
  for (const auto& reader : readers_)
    oldest = std::min(oldest, reader.seen.load(std::memory_order_acquire));
  return oldest;
}

void Publisher::waitUntilSeen(uint64_t sequence) {
  while (!seen(sequence)) std::this_thread::sleep_for(std::chrono::microseconds(20));
}

const Snapshot& Publisher::acquire(unsigned poller) {
  const Snapshot* snapshot = current_.load(std::memory_order_acquire);
  readers_[poller].seen.store(snapshot->sequence, std::memory_order_release);
  return *snapshot;
}

void Publisher::drain(unsigned poller) {
  eventfd_t ignored;
  ::eventfd_read(readers_[poller].wake.get(), &ignored);
}

}  // namespace vdpa::vswitch
