// The transmit queues of a poller: the hot ones, which are polled in each pass with their
// notifications off, and the cold ones, which wait for a kick in an epoll instance. A pod without
// an eventfd to kick stays hot.
//
// The hot ones are in the order in which they were served: a port that has used up its time is
// passed over with all its queues, and the one that has waited for longest goes first next time.
//
// Kicks are watched edge-triggered: their counters are never read, so each kick is one event, and
// none is lost. A queue gets cold in two steps, notifications on, then a look for frames: those
// that came before the first are seen by the second, and those that came after it are kicked for.
#pragma once

#include <sys/epoll.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/serving_page.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/forwarding/source.h"

namespace vdpa::vswitch {

// Belongs to one poller, for its thread only.
class Sources {
 public:
  explicit Sources(ServingPage::Cell& serving);

  // New ones are hot. A pod can make watching a kick, and ending that, take long: see
  // takeWatching().
  void add(SourceList source);
  // Empty: there is none.
  SourceList remove(const TransmitQueue& queue);
  // What the kernel took to watch or to unwatch kicks since the last call, in cycles.
  uint64_t takeWatching() { return std::exchange(watching_, 0); }
  // Null: there is none with this virtqueue's number.
  TransmitQueue* find(MacTable::Port port, uint16_t index);
  // Marks all queues of a port as broken: no poller serves them any more.
  void breakAll(MacTable::Port port);

  // Calls `poll(source)` once for each hot one, which it may make the last, or take out.
  template <typename Poll>
  void eachHot(const Poll& poll) {
    auto next = hot_.begin();
    for (size_t left = hot_.size(); left > 0; --left) poll(*next++);
  }
  void makeLast(Source& source) { hot_.splice(hot_.end(), hot_, source.place); }
  bool anyCold() const { return !cold_.empty(); }
  void heat(Source& source);
  // False: frames have come, and it stays hot.
  bool cool(Source& source);
  // Takes one whose queue is broken out of the hot ones.
  void leave(Source& source);
  // Heats the cold ones that have frames: their pod may have failed to kick.
  void lookAtAll();

  // Other descriptors to wait for. Reported by wait() as they are.
  void watch(int fd, uint32_t events);
  // Heats those that were kicked, for at most `milliseconds`; `other(fd)` is called for other
  // descriptors.
  template <typename Other>
  void wait(int milliseconds, const Other& other) {
    const int count = ::epoll_wait(epoll_.get(), events_, kEvents, milliseconds);
    for (int i = 0; i < count; ++i)
      if (const uint64_t tag = events_[i].data.u64; tag & kOther)
        other(static_cast<int>(tag >> 1));
      else
        heat(*reinterpret_cast<Source*>(tag));
  }

 private:
  static constexpr int kEvents = 64;
  // In a tag: the rest is a descriptor. A tag without it is a Source's address.
  static constexpr uint64_t kOther = 1;

  int watchKick(int operation, const Source& source);
  Source*& at(MacTable::Port port, uint16_t index) {
    return byNumber_[size_t{port} * kMaxQueuePairs + index / 2u];
  }

  ServingPage::Cell& serving_;
  UniqueFd epoll_;
  SourceList hot_, cold_;
  std::vector<Source*> byNumber_;
  uint64_t watching_ = 0;
  epoll_event events_[kEvents];
};

}  // namespace vdpa::vswitch
