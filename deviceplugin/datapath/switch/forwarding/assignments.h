// Hands transmit queues to a poller and takes them back, and tells it of ports that are gone,
// without a lock that the poller could wait for. The objects are allocated and freed by the control
// thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/forwarding/source.h"

namespace vdpa::vswitch {

class Assignments {
 public:
  explicit Assignments(uint64_t hz) : hz_(hz) {}
  ~Assignments() {
    freeAll(pending_);
    freeAll(done_);
  }
  Assignments(const Assignments&) = delete;
  Assignments& operator=(const Assignments&) = delete;

  // --- the control thread
  void assign(TransmitQueue& queue) {
    SourceList source;
    source.emplace_back(queue, hz_);
    push({&queue, std::move(source)});
  }
  void withdraw(TransmitQueue& queue) { push({&queue, {}}); }
  void forget(MacTable::Port port) { push({nullptr, {}, port}); }

  // --- the poller. In the order of the calls: `add` gets lists of one new source, `remove(queue)`
  // returns the list of a queue's, and `forget` gets the numbers of ports that are gone.
  template <typename Add, typename Remove, typename Forget>
  void follow(const Add& add, const Remove& remove, const Forget& forget) {
    Change* change = reversed(pending_.exchange(nullptr, std::memory_order_acquire));
    while (change) {
      Change* next = change->next;
      if (!change->source.empty())
        add(std::move(change->source));
      else if (change->queue)
        change->source = remove(*change->queue);
      else
        forget(change->gone);
      prepend(done_, change);
      change = next;
    }
  }

 private:
  struct Change {
    TransmitQueue* queue;  // null: a port is gone
    SourceList source;     // empty: withdrawn, or gone
    MacTable::Port gone = MacTable::kNoPort;
    Change* next = nullptr;
  };
  using List = std::atomic<Change*>;

  void push(Change change) {
    freeAll(done_);
    prepend(pending_, new Change(std::move(change)));
  }
  static void prepend(List& list, Change* change) {
    change->next = list.load(std::memory_order_relaxed);
    while (!list.compare_exchange_weak(change->next, change, std::memory_order_acq_rel))
      ;
  }
  static Change* reversed(Change* list) {
    Change* result = nullptr;
    while (list) std::swap(list->next, result), std::swap(list, result);
    return result;
  }
  static void freeAll(List& list) {
    Change* change = list.exchange(nullptr, std::memory_order_acquire);
    while (change) delete std::exchange(change, change->next);
  }

  const uint64_t hz_;
  List pending_{nullptr}, done_{nullptr};
};

}  // namespace vdpa::vswitch
