// Passes snapshots from the control side to the pollers, and reports when none of them uses an old
// one any more.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "common/mutex.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/snapshot.h"

namespace vdpa::vswitch {

class Publisher {
 public:
  explicit Publisher(unsigned pollers);

  // --- the control side, from any thread
  // Makes `next` the current snapshot and wakes every poller. Returns its sequence number.
  uint64_t publish(std::unique_ptr<Snapshot> next);
  // Returns whether no poller uses a snapshot older than `sequence`.
  bool seen(uint64_t sequence) const { return oldestSeen() >= sequence; }
  // Waits until that is so.
  void waitUntilSeen(uint64_t sequence);

  // --- a poller's side
  // The current snapshot; this call releases the poller's previous one.
  const Snapshot& acquire(unsigned poller);
  // A descriptor that becomes readable at every publication.
  int wakeFd(unsigned poller) const { return readers_[poller].wake.get(); }
  void drain(unsigned poller);

 private:
  struct alignas(64) Reader {
    std::atomic<uint64_t> seen{0};
    UniqueFd wake;
  };
  uint64_t oldestSeen() const;

  std::vector<Reader> readers_;
  std::atomic<const Snapshot*> current_;
  Mutex mutex_;
  std::vector<std::unique_ptr<Snapshot>> kept_ GUARDED_BY(mutex_);  // the current one last
};

}  // namespace vdpa::vswitch
