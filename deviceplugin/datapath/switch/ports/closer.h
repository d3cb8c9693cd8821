// Ends what a pod's side can make slow to end: unmapping its memory takes a second for each 5 GiB,
// and closing a descriptor of its choice (a lingering socket, a file of its own file system) as
// long as it likes. The control thread must not wait for that: it would miss its heartbeats, and
// the switch would be killed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <utility>

#include "common/mutex.h"

namespace vdpa::vswitch {

// From any thread. A port has a thread while it has something to end: no port waits for another's.
class Closer {
 public:
  // `used` outlives what was taken, which may use it when it ends.
  explicit Closer(std::shared_ptr<const void> used = nullptr);
  // Waits for the threads, at most a second: what takes longer is left to the end of the process.
  ~Closer();
  Closer(const Closer&) = delete;
  Closer& operator=(const Closer&) = delete;

  // Ends the object, after those that were taken of this port before. At once, if no thread can be
  // started.
  template <typename Object>
  void take(uint16_t port, Object object) {
    takeShared(port, std::make_shared<Object>(std::move(object)));
  }
  // How many objects of the port have not ended.
  size_t waiting(uint16_t port) const;

 private:
  struct State {
    Mutex mutex;
    Condition ended;
    std::map<uint16_t, std::deque<std::shared_ptr<void>>> ports GUARDED_BY(mutex);
    std::shared_ptr<const void> used;
  };
  void takeShared(uint16_t port, std::shared_ptr<void> object);
  static void serve(const std::shared_ptr<State>& state, uint16_t port);

  const std::shared_ptr<State> state_ = std::make_shared<State>();  // the threads' too
};

}  // namespace vdpa::vswitch
