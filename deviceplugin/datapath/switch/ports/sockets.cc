// Of Ports: its sockets, the connections, and why a port is closed.
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/event_loop.h"
#include "common/log.h"
#include "common/unique_fd.h"
#include "common/unix_socket.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/poller.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/ports/connection.h"
#include "deviceplugin/datapath/switch/ports/features.h"
#include "deviceplugin/datapath/switch/ports/ports.h"

namespace vdpa::vswitch {

void Ports::open(Entry& entry) {
  ::unlink(markOf(entry).c_str());
  ::unlink(entry.socket.c_str());
  try {
    entry.listener = listenUnix(entry.socket, 0600);
  } catch (const std::exception& error) {
    throw std::runtime_error(fmt::format("cannot open port {}: {}", entry.id, error.what()));
  }
  entry.listenerWatch = EventLoop::Watch(shared_.loop, entry.listener.get(), EPOLLIN,
                                         [this, &entry](uint32_t) { accept(entry); });
}

void Ports::closeSocket(Entry& entry) {
  entry.listenerWatch.reset();
  if (!entry.listener) return;
  ::unlink(entry.socket.c_str());
  closer_.take(entry.port->number, std::move(entry.listener));
}

std::string Ports::markOf(const Entry& entry) const {
  return fmt::format("{}/{}.closed", options_.directory, entry.id);
}

void Ports::markClosed(Entry& entry, std::chrono::milliseconds time) {
  entry.closedUntil = Clock::now() + time;
  entry.opening.start(time);
  const UniqueFd mark(::open(markOf(entry).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (!mark) log::warn("cannot create {}: {}", markOf(entry), std::strerror(errno));
}

void Ports::openDue(Entry& entry) {
  try {
    open(entry);
  } catch (const std::exception& error) {
    log::warn("{}; trying again in {} s", error.what(), kRetry.count());
    return markClosed(entry, kRetry);
  }
  entry.closedUntil.reset();
  entry.closure.reset();
  log::info("port {} is open again", entry.id);
  events_.opened(entry.id);
}

// --- connections

void Ports::accept(Entry& entry) {
  // The worker may have reconnected before we noticed that its last connection ended.
  if (entry.connection && entry.connection->hungUp()) onEnded(entry, "");
  // The newcomer reads the rings' positions only after it is served: it waits.
  if (entry.leaving) return entry.listenerWatch.change(0);
  // What earlier connections left takes long to close: their worker must not fill the process.
  if (closer_.waiting(entry.port->number) >= kMaxClosing) return pause(entry);
  UniqueFd socket(::accept4(entry.listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!socket) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) lack(entry);
    return;
  }
  if (entry.connection) {
    closer_.take(entry.port->number, std::move(socket));
    return complain(entry, "refused a second connection");
  }
  try {
    connect(entry, std::move(socket));
  } catch (const std::exception& error) {
    complain(entry, fmt::format("cannot serve a connection: {}", error.what()));
  }
}

// The connection waits in the socket, which stays readable.
void Ports::pause(Entry& entry) {
  entry.listenerWatch.change(0);
  entry.accepting.start(kRetry);
}

void Ports::lack(Entry& entry) {
  const std::string reason = std::strerror(errno);
  pause(entry);
  const auto now = Clock::now();
  if (shortageLogged_ && now - *shortageLogged_ < kShortage) return;
  shortageLogged_ = now;
  log::error(
      "port {}: cannot accept a connection: {}; trying again every {} s: raise the limit of open "
      "files (RLIMIT_NOFILE) or the memory of vdpa-datapath's container",
      entry.id, reason, kRetry.count());
}

// A worker that is refused tries again.
void Ports::complain(Entry& entry, const std::string& text) {
  const auto suppressed = entry.complaints.admit();
  if (!suppressed) return;
  if (*suppressed == 0) return log::warn("port {}: {}", entry.id, text);
  log::warn("port {}: {} ({} lines about this port suppressed)", entry.id, text, *suppressed);
}

void Ports::connect(Entry& entry, UniqueFd socket) {
  Connection::Events events;
  events.assign = [this](TransmitQueue& queue) { pollerOf(queue).assign(queue); };
  events.withdraw = [this](TransmitQueue& queue) { pollerOf(queue).withdraw(queue); };
  events.receiveChanged = [this, &entry] { publish(entry); };
  events.connected = [this, &entry](bool connected) { setConnected(entry, connected); };
  events.ended = [this, &entry](const std::string& reason) { onEnded(entry, reason); };
  entry.connection = std::make_unique<Connection>(
      Connection::Shared{shared_.loop, shared_.epoch, *guard_, closer_}, std::move(socket),
      *entry.port, offeredFeatures(entry.policy.offloads, options_.queuePairs), std::move(events));
  entry.connection->setLink(entry.view->linkUp);
}

Poller& Ports::pollerOf(const TransmitQueue& queue) {
  return *shared_.pollers[(queue.port->number + queue.index / 2u) % shared_.pollers.size()];
}

void Ports::setConnected(Entry& entry, bool connected, const std::string& reason) {
  if (connected) entry.lastFailure.clear();
  if (std::exchange(entry.connected, connected) != connected || !reason.empty())
    events_.connected(entry.id, connected, reason);
}

void Ports::onEnded(Entry& entry, const std::string& reason) {
  // A worker tries again at once: the same reason is logged once.
  if (!reason.empty() && std::exchange(entry.lastFailure, reason) != reason)
    complain(entry, fmt::format("ended the connection of its worker: {}", reason));
  endConnection(byNumber_[entry.port->number]);
}

void Ports::endConnection(const std::shared_ptr<Entry>& entry) {
  if (!entry->connection) return;
  entry->leaving = std::move(entry->connection);
  entry->leaving->end();
  publish(*entry);
  setConnected(*entry, false);
  shared_.epoch.afterPass([this, entry] {
    handleOffences();  // of the connection, before there is another
    entry->leaving->hangUp();
    closer_.take(entry->port->number, std::move(entry->leaving));
    if (entry->listenerWatch) entry->listenerWatch.change(EPOLLIN);
  });
}

// --- offences

// Also of a connection that has just ended: a pod must not get away by leaving. Once only, although
// several pollers may report it.
void Ports::handleOffences() {
  for (const auto& [number, offence] : shared_.offences.take()) {
    const auto entry = byNumber_[number];
    if (!entry || entry->removed || entry->closedUntil) continue;
    if (entry->connection || entry->leaving) punish(entry, offence);
  }
}

void Ports::punish(const std::shared_ptr<Entry>& entry, Offence offence) {
  std::string deed, reason;
  switch (offence) {
    case Offence::kNone:
      return;
    case Offence::kRing:
      reason = (entry->connection ? *entry->connection : *entry->leaving).fault();
      deed = fmt::format("broke {}", reason);
      break;
    case Offence::kCallBlocks:
      deed = "let a call eventfd block";
      reason = "call eventfd blocks";
      break;
    case Offence::kKickStalls:
      deed = "let its kick eventfd stall the switch";
      reason = "kick eventfd stalls";
      break;
    case Offence::kMemory:
      if (guard_->takeHardwareError()) {
        deed = "shares memory that has a hardware error (see the kernel's log)";
        reason = "memory error";
        break;
      }
      deed = "truncated the memory it shares";
      reason = "memory truncated";
      break;
  }
  const auto penalty = kPenalty * (1u << std::min(entry->offences++, kMaxDoublings));
  log::warn("port {}: its pod {}; dropped the connection, and closed the port for {} s", entry->id,
            deed, penalty.count());
  closeSocket(*entry);
  endConnection(entry);
  markClosed(*entry, penalty);
  setConnected(*entry, false, reason);
}

}  // namespace vdpa::vswitch
