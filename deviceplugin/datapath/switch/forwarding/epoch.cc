#include "deviceplugin/datapath/switch/forwarding/epoch.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>

#include "common/errors.h"
#include "common/unique_fd.h"

namespace vdpa::vswitch {
namespace {

UniqueFd newEvent() {
  return UniqueFd(checked(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "cannot create an eventfd"));
}

void clear(const UniqueFd& event) {
  eventfd_t ignored;
  ::eventfd_read(event.get(), &ignored);
}

}  // namespace

Epoch::Epoch(unsigned pollers) : cells_(pollers), passed_(newEvent()) {
  for (Cell& cell : cells_) cell.wake = newEvent();
}

// Only the last poller to see a change wakes the control thread. Sequentially consistent, or each
// of two could miss the other's store.
void Epoch::announce(unsigned poller, uint64_t now) {
  cells_[poller].seen.store(now, std::memory_order_seq_cst);
  if (oldestSeen() >= now) ::eventfd_write(passed_.get(), 1);
}

uint64_t Epoch::oldestSeen() const {
  uint64_t oldest = UINT64_MAX;
  for (const Cell& cell : cells_)
    oldest = std::min(oldest, cell.seen.load(std::memory_order_seq_cst));
  return oldest;
}

void Epoch::drain(unsigned poller) {
  clear(cells_[poller].wake);
}

void Epoch::afterPass(std::function<void()> task) {
  const uint64_t change = current_.load(std::memory_order_relaxed) + 1;
  tasks_.push_back({change, std::move(task)});
  current_.store(change, std::memory_order_seq_cst);
  for (const Cell& cell : cells_) ::eventfd_write(cell.wake.get(), 1);
  if (cells_.empty()) ::eventfd_write(passed_.get(), 1);
}

void Epoch::runDue() {
  clear(passed_);
  const uint64_t oldest = oldestSeen();
  while (!tasks_.empty() && tasks_.front().due <= oldest) {
    const auto run = std::move(tasks_.front().run);
    tasks_.pop_front();
    run();
  }
}

void Epoch::runAll() {
  while (!tasks_.empty()) {
    const auto run = std::move(tasks_.front().run);
    tasks_.pop_front();
    run();
  }
}

}  // namespace vdpa::vswitch
