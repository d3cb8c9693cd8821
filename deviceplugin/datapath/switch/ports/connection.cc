#include "deviceplugin/datapath/switch/ports/connection.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "common/errors.h"
#include "common/event_loop.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/ports/closer.h"
#include "deviceplugin/datapath/switch/ports/features.h"
#include "deviceplugin/datapath/switch/ports/guest_memory.h"
#include "deviceplugin/datapath/switch/ports/make_ring.h"
#include "deviceplugin/datapath/vhost_user/memory_table.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/session.h"
#include "deviceplugin/datapath/vhost_user/vhost_device.h"
#include "deviceplugin/datapath/virtqueue/fault.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"

namespace vdpa::vswitch {
namespace {

// A worker that never stops sending must not keep the other ports waiting.
constexpr int kMessagesAtOnce = 64;
// What a worker may have the switch close at once: memories, and what messages brought.
constexpr size_t kMaxClosing = 16;

int numberOf(const vhost_user::SharedFd& descriptor) {
  return descriptor ? descriptor->get() : -1;
}

}  // namespace

Queue* Connection::Running::queue() const {
  if (receive) return receive.get();
  return transmit.get();
}

Connection::Connection(Shared shared, UniqueFd socket, Port& port,
                       const vhost_user::OfferedFeatures& offered, Events events)
    : shared_(shared),
      port_(port),
      events_(std::move(events)),
      socket_(std::move(socket)),
      session_(offered),
      running_(session_.device().rings.size()),
      watch_(shared.loop, socket_.fd(), EPOLLIN, [this](uint32_t ready) { onEvents(ready); }) {}

Connection::~Connection() = default;

void Connection::onEvents(uint32_t events) {
  if ((events & EPOLLOUT) && !socket_.flush()) return fail("");
  if (waiting_ && (events & (EPOLLHUP | EPOLLERR))) return fail("");
  serve();
}

void Connection::serve() {
  try {
    if (shared_.closer.waiting(port_.number) > kMaxClosing)
      throw std::runtime_error("closing the descriptors that it sent takes too long");
    for (int i = 0; i < kMessagesAtOnce && !waiting_ && !ended_ && !socket_.blocked(); ++i) {
      auto message = socket_.receive();
      if (!message) break;
      handle(std::move(*message));
      follow();
    }
  } catch (const std::exception& error) {
    return refuse(error.what());
  }
  if (ended_) return;
  if (socket_.ended() && !waiting_) return fail("");
  watch();
}

// What the session doesn't take, it leaves in the message, and nobody knows what it is.
void Connection::handle(vhost_user::Message message) {
  try {
    session_.handle(std::move(message));
  } catch (...) {
    dispose(std::move(message.descriptors));
    throw;
  }
  dispose(std::move(message.descriptors));  // NOLINT(bugprone-use-after-move)
}

void Connection::dispose(std::vector<UniqueFd> descriptors) {
  if (std::any_of(descriptors.begin(), descriptors.end(), [](const UniqueFd& fd) { return !!fd; }))
    shared_.closer.take(port_.number, std::move(descriptors));
}

// Reads nothing more while the pollers pass, and while the other side leaves answers unread.
void Connection::watch() {
  uint32_t events = 0;
  if (socket_.blocked())
    events = EPOLLOUT;
  else if (!waiting_)
    events = EPOLLIN;
  watch_.change(events);
}

// A worker that learns what was refused lets its pod wait; others would try the same again.
void Connection::refuse(const std::string& reason) {
  if (auto reply = session_.takeRefusal()) socket_.send(std::move(*reply));
  fail(reason);
}

void Connection::fail(const std::string& reason) {
  if (ended_) return;
  watch_.reset();
  ended_ = true;
  events_.ended(reason);
}

void Connection::end() {
  ended_ = true;
  watch_.reset();
  for (Running& running : running_) {
    if (running.transmit && running.served) events_.withdraw(*running.transmit);
    running.served = false;
  }
}

// Shut down instead of closed, which would also close descriptors that have not been received.
void Connection::hangUp() {
  ::shutdown(socket_.fd(), SHUT_RDWR);
}

std::vector<ReceiveQueue*> Connection::receive() const {
  std::vector<ReceiveQueue*> queues;
  for (const Running& running : running_)
    if (running.receive && running.served) queues.push_back(running.receive.get());
  return queues;
}

std::string Connection::fault() const {
  for (size_t index = 0; index < running_.size(); ++index) {
    const Queue* queue = running_[index].queue();
    if (!queue || !queue->broken.load(std::memory_order_acquire)) continue;
    const auto fault = std::visit([](const auto& ring) { return ring.fault(); }, queue->ring);
    return fmt::format("ring {}: {}", index, virtqueue::describe(fault));
  }
  return "a ring that is gone";
}

// Runs `task` after a pass, unless this connection is over by then.
void Connection::passed(std::function<void()> task) {
  shared_.epoch.afterPass([this, alive = std::weak_ptr(alive_), task = std::move(task)] {
    if (!alive.expired() && !ended_) task();
  });
}

void Connection::follow() {
  if (!takeFromPollers()) return giveToPollers();
  waiting_ = true;
  passed([this] {
    waiting_ = false;
    try {
      giveToPollers();
    } catch (const std::exception& error) {
      return refuse(error.what());
    }
    serve();
  });
}

// Whether the queue can't go on as it is: a change of the call alone is made below.
bool Connection::mustLeave(const Running& running, const Vring& ring) const {
  const vhost_user::VhostDevice& device = session_.device();
  if (!device.runs(ring) || mapped_ != device.memory) return true;
  if (!running.call != !ring.call) return true;
  return running.transmit && running.kick != ring.kick;
}

bool Connection::setServed(size_t index, bool served) {
  Running& running = running_[index];
  if (running.served == served) return false;
  running.served = served;
  if (running.transmit) (served ? events_.assign : events_.withdraw)(*running.transmit);
  return true;
}

// Whether there is something to wait for.
bool Connection::takeFromPollers() {
  vhost_user::VhostDevice& device = session_.device();
  bool taken = false, receiveTaken = false;
  for (size_t index = 0; index < running_.size(); ++index) {
    Running& running = running_[index];
    Vring& ring = device.rings[index];
    // Closed, since a switch has thousands of ports and needs neither: a broken ring ends the
    // connection, and the pollers look for buffers to receive when they have a frame.
    ring.error.reset();
    if (isReceive(index)) ring.kick.reset();
    if (!running.queue()) continue;
    running.leaving = mustLeave(running, ring);
    if (!running.leaving && running.call != ring.call) {
      // The number that the pollers write to becomes the new eventfd's at once: a virtual machine
      // that masks an interrupt changes it often, and loses no frame.
      checked(::dup3(ring.call->get(), running.call->get(), O_CLOEXEC),
              "cannot replace the call eventfd of ring {}", index);
      ring.call = running.call;
    }
    if (running.leaving || !device.enabled(ring)) {
      const bool was = setServed(index, false);
      taken |= was || running.leaving;
      receiveTaken |= was && isReceive(index);
    }
  }
  if (receiveTaken) events_.receiveChanged();
  return taken;
}

void Connection::giveToPollers() {
  vhost_user::VhostDevice& device = session_.device();
  for (size_t index = 0; index < running_.size(); ++index) {
    Running& running = running_[index];
    if (!running.leaving) continue;
    device.rings[index].base = std::visit(
        [](const auto& ring) {
          return virtqueue::baseOf(ring.positions(), std::decay_t<decltype(ring)>::kFormat);
        },
        running.queue()->ring);
    running = {};
  }
  if (mapped_ != device.memory) mapMemory();
  bool given = false, receiveGiven = false;
  for (size_t index = 0; index < running_.size(); ++index) {
    const Vring& ring = device.rings[index];
    if (!device.runs(ring)) continue;
    if (!running_[index].queue()) start(index);
    if (!device.enabled(ring) || !setServed(index, true)) continue;
    given = true;
    receiveGiven |= isReceive(index);
  }
  if (receiveGiven) events_.receiveChanged();
  noteConnected();
  if (given && connected_ == reportedConnected_) shared_.epoch.afterPass([] {});
  answer();
}

// The pod counts as connected once the first pair is enabled, and until one of its rings stops.
void Connection::noteConnected() {
  const vhost_user::VhostDevice& device = session_.device();
  const auto runs = [&](size_t index) { return running_[index].queue() != nullptr; };
  const auto enabled = [&](size_t index) { return device.enabled(device.rings[index]); };
  connected_ = runs(0) && runs(1) && (connected_ || (enabled(0) && enabled(1)));
  if (connected_ == reportedConnected_) return;
  if (!connected_) {
    reportedConnected_ = false;
    return events_.connected(false);
  }
  passed([this] {
    if (!connected_ || reportedConnected_) return;
    reportedConnected_ = true;
    events_.connected(true);
  });
}

void Connection::answer() {
  auto reply = session_.takeReply();
  if (reply && !socket_.send(std::move(*reply))) fail("");
}

// The pollers have left the old one. Its files need not stay open.
void Connection::mapMemory() {
  vhost_user::VhostDevice& device = session_.device();
  mapped_.reset();
  if (memory_) shared_.closer.take(port_.number, std::move(memory_));
  memory_ = std::make_shared<const GuestMemory>(*device.memory, port_.number, shared_.guard);
  device.memory = std::make_shared<const vhost_user::MemoryTable>(device.memory->withoutFiles());
  mapped_ = device.memory;
}

template <typename Q>
std::unique_ptr<Q> Connection::makeQueue(size_t index) {
  const vhost_user::VhostDevice& device = session_.device();
  const bool receive = isReceive(index);
  return std::unique_ptr<Q>(new Q{
      {.ring = makeRing(device, index, *memory_),
       .port = &port_,
       .index = static_cast<uint16_t>(index),
       .call = numberOf(device.rings[index].call),
       .memory = memory_,
       .format = formatOf(device.features),
       .offloads = receive ? offloadsReceived(device.features) : offloadsSent(device.features)},
      {}});
}

void Connection::start(size_t index) {
  const Vring& ring = session_.device().rings[index];
  Running& running = running_[index];
  if (isReceive(index)) {
    running.receive = makeQueue<ReceiveQueue>(index);
  } else {
    running.transmit = makeQueue<TransmitQueue>(index);
    running.transmit->kick = numberOf(ring.kick);
  }
  running.call = ring.call;
  running.kick = ring.kick;
}

}  // namespace vdpa::vswitch
