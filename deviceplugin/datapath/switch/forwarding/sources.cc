#include "deviceplugin/datapath/switch/forwarding/sources.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <variant>

#include "common/errors.h"
#include "common/serving_page.h"
#include "deviceplugin/datapath/switch/forwarding/cycles.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/source.h"

namespace vdpa::vswitch {
namespace {

bool isBroken(const Source& source) {
  return source.queue.broken.load(std::memory_order_relaxed);
}

}  // namespace

Sources::Sources(ServingPage::Cell& serving)
    : serving_(serving),
      epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "cannot create an epoll instance")) {
  byNumber_.resize(size_t{MacTable::kMaxPorts} * kMaxQueuePairs);
}

void Sources::watch(int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = static_cast<uint64_t>(fd) << 1 | kOther;
  checked(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event), "cannot watch a descriptor");
}

void Sources::add(SourceList added) {
  Source& source = added.front();
  source.place = added.begin();
  cold_.splice(cold_.end(), added);
  at(source.port, source.queue.index) = &source;
  // A descriptor that epoll refuses is polled.
  source.kicks = source.queue.kick >= 0 && watchKick(EPOLL_CTL_ADD, source) == 0;
  heat(source);
}

SourceList Sources::remove(const TransmitQueue& queue) {
  Source*& place = at(queue.port->number, queue.index);
  if (!place || &place->queue != &queue) return {};
  Source& source = *std::exchange(place, nullptr);
  leave(source);
  SourceList removed;
  removed.splice(removed.end(), cold_, source.place);
  // The pod has this descriptor too: closing ours would not end the watch.
  if (source.kicks) watchKick(EPOLL_CTL_DEL, source);
  return removed;
}

// Takes the eventfd's lock, which the pod holds while it writes: 92 ms with a million watchers.
int Sources::watchKick(int operation, const Source& source) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.u64 = reinterpret_cast<uint64_t>(&source);
  const uint64_t before = cycles();
  const int result = ::epoll_ctl(epoll_.get(), operation, source.queue.kick, &event);
  watching_ += cycles() - before;
  return result;
}

TransmitQueue* Sources::find(MacTable::Port port, uint16_t index) {
  const Source* source = at(port, index);
  return source ? &source->queue : nullptr;
}

void Sources::breakAll(MacTable::Port port) {
  for (uint16_t index = 1; index < 2 * kMaxQueuePairs; index += 2)
    if (TransmitQueue* queue = find(port, index)) queue->broken = true;
}

void Sources::heat(Source& source) {
  if (source.hot || isBroken(source)) return;
  serving_.begin(source.port, source.queue.index);
  std::visit([](auto& ring) { ring.suppressNotifications(); }, source.queue.ring);
  serving_.end();
  source.hot = true;
  hot_.splice(hot_.end(), cold_, source.place);
}

bool Sources::cool(Source& source) {
  const bool frames = std::visit(
      [](auto& ring) {
        if (!ring.requestNotifications()) return false;
        ring.suppressNotifications();
        return true;
      },
      source.queue.ring);
  if (!frames) leave(source);
  return !frames;
}

void Sources::leave(Source& source) {
  if (!source.hot) return;
  source.hot = false;
  cold_.splice(cold_.end(), hot_, source.place);
}

void Sources::lookAtAll() {
  for (auto next = cold_.begin(); next != cold_.end();) {
    Source& source = *next++;
    if (isBroken(source)) continue;
    serving_.begin(source.port, source.queue.index);
    if (std::visit([](auto& ring) { return ring.available(); }, source.queue.ring)) heat(source);
  }
  serving_.end();
}

}  // namespace vdpa::vswitch
