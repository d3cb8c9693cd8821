#include "deviceplugin/datapath/switch/vhost_ports.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_vhost.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/control_port.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/port_settings.h"
#include "common/serving_page.h"
#include "common/unique_fd.h"
#include "common/unix_socket.h"
#include "deviceplugin/datapath/switch/counters.h"
#include "deviceplugin/datapath/switch/mac_table.h"
#include "deviceplugin/datapath/switch/publisher.h"
#include "deviceplugin/datapath/switch/snapshot.h"
#include "deviceplugin/datapath/switch/stalled_calls.h"

namespace vdpa::vswitch {
namespace {

constexpr uint16_t kEthernetHeader = 14;  // bytes

// Feature bits of a network device (virtio 1.2, section 5.1.3). In C++, linux/virtio_net.h
// conflicts with DPDK's headers.
enum Feature : unsigned {
  csum = 0,
  guestCsum = 1,
  guestTso4 = 7,
  guestTso6 = 8,
  guestEcn = 9,
  guestUfo = 10,
  hostTso4 = 11,
  hostTso6 = 12,
  hostEcn = 13,
  hostUfo = 14,
};

// Not offered: offloads would leave checksums and segmentation to the receiving pod.
constexpr uint64_t kOffloads =
    1ull << csum | 1ull << guestCsum | 1ull << guestTso4 | 1ull << guestTso6 | 1ull << guestEcn |
    1ull << guestUfo | 1ull << hostTso4 | 1ull << hostTso6 | 1ull << hostEcn | 1ull << hostUfo;

// rte_vhost's callbacks have no context argument, and a process has only one switch.
std::atomic<VhostPorts*> instance{nullptr};

}  // namespace

struct VhostCallbacks {
  static int newDevice(int vid) { return instance.load()->onNewDevice(vid); }
  static void destroyDevice(int vid) { instance.load()->onDestroyDevice(vid); }
  static int vringState(int vid, uint16_t vring, int enabled) {
    instance.load()->onVringState(vid, vring, enabled != 0);
    return 0;
  }
  static int newConnection(int vid) { return instance.load()->onNewConnection(vid); }

  static const rte_vhost_device_ops* operations() {
    static const rte_vhost_device_ops table = [] {
      rte_vhost_device_ops operations{};
      operations.new_device = newDevice;
      operations.destroy_device = destroyDevice;
      operations.vring_state_changed = vringState;
      operations.new_connection = newConnection;
      return operations;
    }();
    return &table;
  }
};

VhostPorts::Port::Port() : limit(rte_get_tsc_hz()) {}

void VhostPorts::Port::use(const PortSettings& next) {
  settings = next;
  if (*settings.maxTxRate > 0) limit.set(*settings.maxTxRate, *settings.mtu + kEthernetHeader);
}

VhostPorts::VhostPorts(Options options, Publisher& publisher, MacTable& table,
                       StalledCalls& stalled, ServingPage& serving, Events events)
    : options_(std::move(options)),
      waker_(options_.directory + "/.bell"),  // no device ID has a leading dot
      publisher_(publisher),
      table_(table),
      stalled_(stalled),
      serving_(serving),
      events_(std::move(events)),
      uplinkCounters_(options_.pollers) {
  instance = this;
  table_.setLimit(kUplinkPort, MacTable::kLearnedOnUplink);
  Lock lock(mutex_);
  publish();
}

VhostPorts::~VhostPorts() {  // NOLINT(bugprone-exception-escape): remove() throws for unknown ones
  for (const auto& id : ids()) remove(id);
  instance = nullptr;
}

VhostPorts::Port& VhostPorts::find(const std::string& id) {
  const auto port = controlPorts().find(id);
  if (port == controlPorts().end()) throw std::runtime_error(fmt::format("no port {}", id));
  return *port->second;
}

VhostPorts::Port* VhostPorts::findSocket(int vid) {
  char path[PATH_MAX] = "";
  if (rte_vhost_get_ifname(vid, path, sizeof path) != 0) return nullptr;
  for (auto& [id, port] : ports_)
    if (port->socket == path) return port.get();
  return nullptr;
}

MacTable::Port VhostPorts::freeNumber() const {
  if (ports_.size() == kMaxPorts)
    throw std::runtime_error(fmt::format(
        "the switch already has {} ports, the maximum of DPDK's vhost library: pods that request "
        "another resource get another switch",
        kMaxPorts));
  std::vector<bool> used(MacTable::kMaxPorts);
  for (const auto& [id, port] : ports_) used[port->number] = true;
  for (MacTable::Port number = kUplinkPort + 1; number < MacTable::kMaxPorts; ++number)
    if (!used[number]) return number;
  throw std::logic_error("fewer numbers than ports");
}

std::string VhostPorts::add(const std::string& id, const PortSettings& settings,
                            const std::optional<Closure>& closure) {
  auto port = std::make_unique<Port>();
  port->id = id;
  port->socket = fmt::format("{}/{}.sock", options_.directory, id);
  if (port->socket.size() > kMaxSocketPath)
    throw std::runtime_error(fmt::format("socket path {} has {} bytes; at most {} fit",
                                         port->socket, port->socket.size(), kMaxSocketPath));
  port->use(settings);
  port->enabled.resize(options_.queuePairs * 2);
  port->counters = std::vector<Counters>(options_.pollers);
  Port& added = *port;
  {
    Lock lock(mutex_);
    if (ports_.contains(id)) throw std::runtime_error(fmt::format("port {} exists already", id));
    port->number = freeNumber();
    serving_.name(port->number, id);
    addAddress(*port);
    ports_.emplace(id, std::move(port));
    publish();
  }
  try {
    added.closure = closure;
    if (closure)
      markClosed(added, closure->left);
    else
      registerSocket(added);
  } catch (...) {
    remove(id);
    throw;
  }
  return added.socket;
}

std::string VhostPorts::markOf(const Port& port) const {
  return fmt::format("{}/{}.closed", options_.directory, port.id);
}

void VhostPorts::markClosed(Port& port, std::chrono::milliseconds time) {
  port.closedUntil = Clock::now() + time;
  const UniqueFd mark(::open(markOf(port).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (!mark) log::warn("cannot create {}: {}", markOf(port), std::strerror(errno));
}

void VhostPorts::registerSocket(Port& port) {
  ::unlink(markOf(port).c_str());
  ::unlink(port.socket.c_str());
  const char* path = port.socket.c_str();
  const auto check = [&](int result, const char* what) {
    if (result != 0)
      throw std::runtime_error(fmt::format("cannot {} port {} ({})", what, port.id, path));
  };
  // A frame that doesn't fit one packet buffer exceeds every MTU: rte_vhost drops it without
  // copying, or a pod could make this switch copy the pod's whole memory for every descriptor.
  check(rte_vhost_driver_register(path, RTE_VHOST_USER_LINEARBUF_SUPPORT), "register");
  check(rte_vhost_driver_disable_features(path, kOffloads), "configure");
  check(rte_vhost_driver_callback_register(path, VhostCallbacks::operations()), "configure");
  check(rte_vhost_driver_start(path), "start");
  waker_.ring();
}

// The peer sees the end of its connection only after rte_vhost's thread has stopped polling it.
void VhostPorts::unregisterSocket(const std::string& path) {
  rte_vhost_driver_unregister(path.c_str());
  ::unlink(path.c_str());
  waker_.ring();
}

void VhostPorts::set(const std::string& id, const PortSettings& settings) {
  Lock lock(mutex_);
  Port& port = find(id);
  const PortSettings before = port.settings;
  port.use(settings);
  table_.removePort(port.number);
  returnAddress(before);
  addAddress(port);
  publish();
}

void VhostPorts::remove(const std::string& id) {
  std::string socket;
  {
    Lock lock(mutex_);
    socket = find(id).socket;
  }
  // Without the lock: ending the connection calls back.
  unregisterSocket(socket);
  std::unique_ptr<Port> gone;
  uint64_t sequence = 0;
  {
    Lock lock(mutex_);
    const auto port = ports_.find(id);
    gone = std::move(port->second);
    ports_.erase(port);
    sequence = publish();
  }
  publisher_.waitUntilSeen(sequence);
  ::unlink(markOf(*gone).c_str());
  table_.removePort(gone->number);
  Lock lock(mutex_);
  returnAddress(gone->settings);
}

// If two ports have the same address, it belongs to the later one while that exists.
void VhostPorts::returnAddress(const PortSettings& gone) {
  for (const auto& [id, port] : ports_)
    if (port->settings.mac == gone.mac && port->settings.vlan == gone.vlan) addAddress(*port);
}

void VhostPorts::addAddress(const Port& port) {
  table_.addStatic(packed(*port.settings.mac), static_cast<uint16_t>(*port.settings.vlan),
                   port.number);
}

void VhostPorts::hold(bool held) {
  uint64_t sequence = 0;
  {
    Lock lock(mutex_);
    held_ = held;
    sequence = publish();
  }
  publisher_.waitUntilSeen(sequence);
}

std::vector<std::string> VhostPorts::ids() const {
  Lock lock(mutex_);
  std::vector<std::string> ids;
  for (const auto& [id, port] : ports_) ids.push_back(id);
  return ids;
}

void VhostPorts::fillWork(Snapshot& snapshot, Port& port) const {
  PortView& view = snapshot.ports[port.number];
  for (unsigned pair = 0; pair < options_.queuePairs; ++pair) {
    const auto receive = static_cast<uint16_t>(pair * 2),
               send = static_cast<uint16_t>(pair * 2 + 1);
    if (port.enabled[receive]) view.rxQueues[view.rxQueueCount++] = receive;
    if (!port.enabled[send] || held_) continue;
    rte_vhost_vring vring{};
    const bool known = rte_vhost_get_vhost_vring(port.vid, send, &vring) == 0;
    snapshot.work[(port.number + pair) % options_.pollers].push_back(
        {port.number, port.vid, send, known ? vring.kickfd : -1,
         *port.settings.maxTxRate > 0 ? &port.limit : nullptr});
  }
}

uint64_t VhostPorts::publish() {
  auto snapshot = std::make_unique<Snapshot>();
  size_t highest = kUplinkPort;
  for (const auto& [id, port] : ports_) highest = std::max<size_t>(highest, port->number);
  snapshot->ports.resize(highest + 1);
  snapshot->work.resize(options_.pollers);
  snapshot->uplink = options_.uplink && !held_;
  PortView& uplink = snapshot->ports[kUplinkPort];
  uplink.exists = uplink.linkUp = options_.uplink;
  uplink.maxFrame = static_cast<uint16_t>(options_.uplinkMtu + kEthernetHeader);
  uplink.counters = uplinkCounters_.data();
  for (const auto& [id, port] : ports_) {
    PortView& view = snapshot->ports[port->number];
    view.exists = true;
    view.linkUp = port->settings.linkState != LinkState::disable;
    view.spoofCheck = *port->settings.spoofCheck;
    view.trust = *port->settings.trust;
    view.vlan = static_cast<uint16_t>(*port->settings.vlan);
    view.mac = packed(*port->settings.mac);
    view.maxFrame = static_cast<uint16_t>(*port->settings.mtu + kEthernetHeader);
    view.vid = port->vid;
    view.counters = port->counters.data();
    if (port->vid >= 0) fillWork(*snapshot, *port);
  }
  return publisher_.publish(std::move(snapshot));
}

// --- rte_vhost's thread

int VhostPorts::onNewConnection(int vid) {
  Lock lock(mutex_);
  const Port* port = findSocket(vid);
  if (port && port->vid < 0) return 0;
  log::warn("refused a second connection to port {}", port ? port->id : "?");
  return -1;
}

int VhostPorts::onNewDevice(int vid) {
  std::string id;
  {
    Lock lock(mutex_);
    Port* port = findSocket(vid);
    rte_vhost_memory* memory = nullptr;
    if (!port || rte_vhost_get_mem_table(vid, &memory) != 0) return -1;
    for (uint32_t i = 0; i < memory->nregions; ++i)
      guard_.add(vid, reinterpret_cast<uint64_t>(memory->regions[i].mmap_addr),
                 memory->regions[i].mmap_size);
    std::free(memory);
    port->vid = vid;
    id = port->id;
    // No need to wait: a poller with the old snapshot only misses this port for a moment.
    port->connectedSince = publish();
  }
  events_.connected(id, true, "");
  return 0;
}

void VhostPorts::onDestroyDevice(int vid) {
  std::string id;
  uint64_t sequence = 0;
  {
    Lock lock(mutex_);
    for (auto& [name, port] : ports_) {
      if (port->vid != vid) continue;
      port->vid = -1;
      port->enabled.assign(port->enabled.size(), false);
      id = name;
    }
    sequence = publish();
  }
  // rte_vhost frees the device after this returns. It holds no lock here that a poller may wait
  // for.
  publisher_.waitUntilSeen(sequence);
  guard_.remove(vid);
  stalled_.forget(vid);
  if (!id.empty()) events_.connected(id, false, "");
}

// rte_vhost holds the queue's lock here, and a poller may be spinning on it: never wait for
// pollers.
void VhostPorts::onVringState(int vid, uint16_t vring, bool enabled) {
  Lock lock(mutex_);
  Port* port = findSocket(vid);
  if (!port || vring >= port->enabled.size()) return;
  port->enabled[vring] = enabled;
  if (port->vid >= 0) publish();
}

// --- answers for the control channel

control::PortList VhostPorts::describe() const {
  Lock lock(mutex_);
  control::PortList list;
  for (const auto& [id, port] : ports_) {
    auto& status = *list.add_ports();
    status.set_socket(port->socket);
    status.set_connected(port->vid >= 0 && publisher_.seen(port->connectedSince));
    auto& settings = *status.mutable_port() = controlFromPort(id, port->settings);
    if (!port->closure) continue;
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(*port->closedUntil - Clock::now());
    auto& closed = *settings.mutable_closed();
    closed.set_milliseconds(std::max<int64_t>(1, left.count()));
    closed.set_crashes(port->closure->crashes);
    closed.set_reason(port->closure->reason);
  }
  return list;
}

control::SwitchStats VhostPorts::stats(const std::vector<std::string>& ids) const {
  Lock lock(mutex_);
  control::SwitchStats stats;
  const auto addPort = [&](const std::string& id, const std::vector<Counters>& counters) {
    auto& port = *stats.add_ports();
    const auto sum = [&](auto member) {
      uint64_t total = 0;
      for (const auto& each : counters) total += (each.*member).get();
      return total;
    };
    port.set_id(id);
    port.set_rx_packets(sum(&Counters::rxPackets));
    port.set_rx_bytes(sum(&Counters::rxBytes));
    port.set_tx_packets(sum(&Counters::txPackets));
    port.set_tx_bytes(sum(&Counters::txBytes));
    for (size_t reason = 0; reason < kDrops; ++reason) {
      auto& drop = *port.add_drops();
      drop.set_name(kDropNames[reason]);
      uint64_t total = 0;
      for (const auto& each : counters) total += each.drops[reason].get();
      drop.set_value(total);
    }
  };
  for (const auto& [id, port] : ports_)
    if (ids.empty() || std::find(ids.begin(), ids.end(), id) != ids.end())
      addPort(id, port->counters);
  if (ids.empty() && options_.uplink) addPort("uplink", uplinkCounters_);
  return stats;
}

std::vector<std::string> VhostPorts::idsOf(const std::vector<int>& vids) const {
  std::vector<std::string> ids;
  for (const auto& [id, port] : ports_)
    if (port->vid >= 0 && std::find(vids.begin(), vids.end(), port->vid) != vids.end())
      ids.push_back(id);
  return ids;
}

void VhostPorts::handleFailures() {
  close([this] { return guard_.takeFailed(); }, "truncated the memory it shares",
        "memory truncated");
}

void VhostPorts::handleStalls() {
  close([this] { return stalled_.take(); }, "let a call eventfd block", "call eventfd blocks");
}

void VhostPorts::close(const std::function<std::vector<int>()>& take, const char* offence,
                       const char* reason) {
  std::vector<std::string> offenders;
  {
    // Under the lock no connection ends, so none of the handles is reused meanwhile.
    Lock lock(mutex_);
    offenders = idsOf(take());
  }
  for (const auto& id : offenders) {
    Port& port = find(id);
    const auto penalty = kPenalty * (1u << std::min(port.offences++, kMaxDoublings));
    log::warn("port {}: its pod {}; dropped the connection, and closed the port for {} s", id,
              offence, penalty.count());
    unregisterSocket(port.socket);
    markClosed(port, penalty);
    events_.connected(id, false, reason);
  }
}

void VhostPorts::openDue() {
  for (const auto& [id, port] : controlPorts()) {
    if (!port->closedUntil || Clock::now() < *port->closedUntil) continue;
    port->closedUntil.reset();
    port->closure.reset();
    log::info("port {} is open again", id);
    registerSocket(*port);
    events_.opened(id);
  }
}

int VhostPorts::untilNextOpening() const {
  std::optional<Clock::time_point> next;
  for (const auto& [id, port] : controlPorts())
    if (port->closedUntil && (!next || *port->closedUntil < *next)) next = port->closedUntil;
  if (!next) return -1;
  const auto wait = std::chrono::ceil<std::chrono::milliseconds>(*next - Clock::now());
  return static_cast<int>(std::max<int64_t>(0, wait.count()));
}

}  // namespace vdpa::vswitch
