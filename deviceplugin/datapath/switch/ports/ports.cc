#include "deviceplugin/datapath/switch/ports/ports.h"

#include <fmt/core.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/log.h"
#include "common/mac_address.h"
#include "common/port_policy.h"
#include "common/port_settings.h"
#include "common/serving_page.h"
#include "common/unique_fd.h"
#include "common/unix_socket.h"
#include "deviceplugin/datapath/memory_guard/memory_guard.h"
#include "deviceplugin/datapath/switch/forwarding/counters.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/poller.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/forwarding/vlan_tag.h"
#include "deviceplugin/datapath/switch/ports/capacity.h"
#include "deviceplugin/datapath/switch/ports/connection.h"
#include "deviceplugin/datapath/switch/ports/port_view.h"

namespace vdpa::vswitch {

Ports::Ports(Options options, Shared shared, Events events)
    : options_(std::move(options)),
      shared_(shared),
      events_(std::move(events)),
      capacity_(readCapacity(options_.queuePairs)),
      guard_(std::make_shared<MemoryGuard>(
          MemoryGuard::Unknown::kCrash,
          [](void* offences, int port) {
            static_cast<Offences*>(offences)->report(static_cast<MacTable::Port>(port),
                                                     Offence::kMemory);
          },
          &shared_.offences)),
      closer_(guard_),
      byNumber_(MacTable::kMaxPorts),
      passes_(shared_.loop, shared_.epoch.fd(), EPOLLIN,
              [this](uint32_t) { shared_.epoch.runDue(); }),
      offences_(shared_.loop, shared_.offences.fd(), EPOLLIN,
                [this](uint32_t) { handleOffences(); }) {
  if (!capacity_.limit.empty())
    log::warn("this switch has room for {} ports instead of {}: {}", capacity_.ports,
              Capacity::kMaxPorts, capacity_.limit);
  shared_.table.setLimit(kUplinkPort, MacTable::kLearnedOnUplink);
  if (!options_.uplink) return;
  uplinkView_.linkUp = true;
  uplinkView_.maxFrame = static_cast<uint16_t>(options_.uplinkMtu + kEthernetHeader);
  uplink_ = std::make_unique<Port>();
  uplink_->number = kUplinkPort;
  uplink_->id = "uplink";
  uplink_->counters = std::vector<Counters>(shared_.pollers.size());
  uplink_->view = &uplinkView_;
  shared_.ports.add(*uplink_);
}

// All sockets by one thread, not one for each.
Ports::~Ports() {
  std::vector<UniqueFd> listeners;
  for (const auto& [id, entry] : entries_) {
    entry->listenerWatch.reset();
    ::unlink((entry->listener ? entry->socket : markOf(*entry)).c_str());
    listeners.push_back(std::move(entry->listener));
  }
  closer_.take(kUplinkPort, std::move(listeners));
}

void Ports::end() {
  for (const auto& [id, entry] : entries_) {
    entry->listenerWatch.reset();
    entry->opening.cancel();
    if (entry->connection) endConnection(entry);
  }
}

Ports::Entry& Ports::find(const std::string& id) {
  const auto entry = entries_.find(id);
  if (entry == entries_.end()) throw std::runtime_error(fmt::format("no port {}", id));
  return *entry->second;
}

MacTable::Port Ports::freeNumber() const {
  if (entries_.size() >= capacity_.ports)
    throw std::runtime_error(fmt::format(
        "the switch already has {} ports, the maximum: {}", entries_.size(),
        capacity_.limit.empty() ? "pods that request another resource get another switch"
                                : capacity_.limit));
  for (MacTable::Port number = kUplinkPort + 1; number < MacTable::kMaxPorts; ++number)
    if (!byNumber_[number]) return number;
  throw std::runtime_error("the ports that were removed last are still in use: try again");
}

std::string Ports::add(const std::string& id, const PortSettings& settings,
                       const PortPolicy& policy, const std::optional<Closure>& closure) {
  const std::string socket = fmt::format("{}/{}.sock", options_.directory, id);
  if (socket.size() > kMaxSocketPath)
    throw std::runtime_error(fmt::format("socket path {} has {} bytes; at most {} fit", socket,
                                         socket.size(), kMaxSocketPath));
  if (entries_.contains(id)) throw std::runtime_error(fmt::format("port {} exists already", id));
  auto port = std::make_unique<Port>();
  port->number = freeNumber();
  port->id = id;
  port->counters = std::vector<Counters>(shared_.pollers.size());

  const auto entry = std::make_shared<Entry>(shared_.loop, options_.cyclesPerSecond,
                                             [this, id] { openDue(find(id)); });
  entry->id = id;
  entry->socket = socket;
  entry->settings = settings;
  entry->policy = policy;
  entry->port = std::move(port);
  entry->closure = closure;
  shared_.serving.name(entry->port->number, id);
  if (closure)
    markClosed(*entry, closure->left);
  else
    open(*entry);  // what fails, fails before the port exists
  entries_.emplace(id, entry);
  byNumber_[entry->port->number] = entry;
  publish(*entry);
  addAddress(*entry);
  return socket;
}

void Ports::set(const std::string& id, const PortSettings& settings, const PortPolicy& policy) {
  Entry& entry = find(id);
  const PortSettings before = std::exchange(entry.settings, settings);
  entry.policy = policy;
  publish(entry);
  shared_.table.removePort(entry.port->number);
  returnAddress(*before.mac);
  addAddress(entry);
}

void Ports::remove(const std::string& id) {
  find(id);
  const auto node = entries_.extract(id);
  const std::shared_ptr<Entry>& entry = node.mapped();
  const MacTable::Port number = entry->port->number;
  entry->removed = true;
  entry->opening.cancel();
  if (entry->capturing) endCapture(*entry);
  closeSocket(*entry);
  ::unlink(markOf(*entry).c_str());
  endConnection(entry);
  changeMembers(*entry->port, vlansOf(*entry->view), {});
  shared_.ports.remove(*entry->port);
  shared_.table.removePort(number);
  returnAddress(*entry->settings.mac);
  for (const auto& poller : shared_.pollers) poller->forget(number);
  // After the pass, what a poller has learned of its last frames goes too, and the number can be
  // another port's.
  shared_.epoch.afterPass([this, entry, number] {
    shared_.table.removePort(number);
    shared_.offences.forget(number);
    byNumber_[number].reset();
  });
}

// If two ports have the same address, it belongs to the later one while that exists.
void Ports::returnAddress(const MacAddress& gone) {
  for (const auto& [id, entry] : entries_)
    if (entry->settings.mac == gone) addAddress(*entry);
}

void Ports::addAddress(const Entry& entry) {
  const VlanSet vlans = vlansOf(*entry.view);
  for (size_t vlan = vlans._Find_first(); vlan < vlans.size(); vlan = vlans._Find_next(vlan))
    shared_.table.addStatic(entry.view->mac, static_cast<uint16_t>(vlan), entry.port->number);
}

void Ports::publish(Entry& entry) {
  auto view = std::make_unique<PortView>(viewOf(entry.settings, entry.policy, entry.limits));
  view->capture = captureOf(entry);
  if (entry.connection) {
    entry.connection->setLink(view->linkUp);
    for (ReceiveQueue* queue : entry.connection->receive())
      view->receive[view->receiveCount++] = queue;
  }
  const VlanSet before = entry.view ? vlansOf(*entry.view) : VlanSet{};
  const VlanSet after = vlansOf(*view);
  Port& port = *entry.port;
  port.view.store(view.get(), std::memory_order_release);
  auto old = std::exchange(entry.view, std::move(view));
  if (!old)
    shared_.ports.add(port);
  else if (old->mac != entry.view->mac || old->trust != entry.view->trust ||
           old->spoofCheck != entry.view->spoofCheck)
    shared_.ports.changed();
  changeMembers(port, before, after);
  shared_.epoch.retire(std::move(old));
}

// Replaces only the lists of VLANs that the port enters or leaves.
void Ports::changeMembers(Port& port, const VlanSet& before, const VlanSet& after) {
  const VlanSet changed = before ^ after;
  for (size_t vlan = changed._Find_first(); vlan < changed.size();
       vlan = changed._Find_next(vlan)) {
    const auto number = static_cast<uint16_t>(vlan);
    std::vector<Port*> members;
    if (const auto* now = shared_.ports.members(number)) members = *now;
    if (after[vlan])
      members.push_back(&port);
    else
      std::erase(members, &port);
    PortTable::Members list;
    if (!members.empty()) list = std::make_unique<const std::vector<Port*>>(std::move(members));
    shared_.epoch.retire(shared_.ports.setMembers(number, std::move(list)));
  }
}

void Ports::hold(bool held) {
  for (const auto& poller : shared_.pollers) poller->hold(held);
  shared_.epoch.afterPass([] {});
}

std::vector<std::string> Ports::ids() const {
  std::vector<std::string> ids;
  for (const auto& [id, entry] : entries_) ids.push_back(id);
  return ids;
}

}  // namespace vdpa::vswitch
