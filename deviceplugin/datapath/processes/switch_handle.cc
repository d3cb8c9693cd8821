#include "deviceplugin/datapath/processes/switch_handle.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/control_channel.h"
#include "common/control_json.h"
#include "common/control_port.h"
#include "common/event_thread.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/naming.h"
#include "common/number_list.h"
#include "common/paths.h"
#include "common/port_settings.h"
#include "common/serving_page.h"
#include "common/task.h"
#include "common/uplink_config.h"
#include "deviceplugin/datapath/model/device_counters.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/programs.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/processes/supervised_process.h"

namespace vdpa::datapath {
namespace {

// For a restarted switch to be ready.
constexpr auto kUpTime = std::chrono::seconds(4);
constexpr auto kHeartbeat = std::chrono::seconds(5);
// For its pods to connect to an upgraded switch.
constexpr auto kHold = std::chrono::milliseconds(1000);
// How long a port whose pod crashed the switch is closed, doubled each time: far longer than the
// switch closes a port by itself, since a crash costs all pods packets.
constexpr auto kFirstClosure = std::chrono::seconds(60);
constexpr unsigned kMaxDoublings = 6;
// For a worker to report what its pod has not allocated; after that time no further one is asked.
constexpr auto kAskTime = std::chrono::seconds(1);
// Of a request for counters.
constexpr auto kCountersTime = std::chrono::seconds(5);
constexpr uint64_t kMiB = 1 << 20;  // less is not reported
constexpr size_t kMaxSuspects = 3;

constexpr unsigned kAnyMtu = UINT16_MAX;  // the switch has checked it

SwitchHandle::Ports portsOf(const control::PortList& list) {
  SwitchHandle::Ports ports;
  for (const auto& each : list.ports())
    ports[each.port().id()] = {portFromControl(each.port(), kAnyMtu),
                               policyFromControl(each.port())};
  return ports;
}

// The first setting in force that 0.1.0 does not know, "max_rx_rate 100"; empty: none.
std::string unknownTo010(const PortSettings& settings) {
  std::string found;
  forEachSetting(
      [&]<typename Value>(const Setting& setting, const std::optional<Value>& value) {
        if (setting.since010 || !value || *value == Value() || !found.empty()) return;
        found = fmt::format("{} {}", setting.key, textOf(*value));
      },
      settings);
  return found;
}

std::set<std::string> idsOf(const control::HelloAnswer& hello) {
  return {hello.vswitch().ports().begin(), hello.vswitch().ports().end()};
}

control::Request removal(const std::string& id) {
  control::Request request;
  request.mutable_remove_port()->set_id(id);
  return request;
}

control::Request listRequest() {
  control::Request request;
  request.mutable_ports();
  return request;
}

std::vector<unsigned> coresOf(const std::string& text) {
  std::vector<unsigned> cores;
  for (const auto& range : parseNumberList(text).value_or(std::vector<NumberRange>()))
    for (unsigned cpu = range.first; cpu <= range.last; ++cpu) cores.push_back(cpu);
  return cores;
}

// The configuration that the switch reports. If its cores are those of `launched`, they are written
// as there.
SwitchConfig configOf(const control::SwitchHello& hello, const SwitchConfig& launched) {
  SwitchConfig config{hello.queue_pairs(),
                      hello.mtu(),
                      {hello.uplink(), hello.uplink_xdp(), hello.uplink_pci()},
                      launched.cores};
  const std::vector<unsigned> cores(hello.cores().begin(), hello.cores().end());
  if (cores != coresOf(launched.cores)) config.cores = fmt::format("{}", fmt::join(cores, ","));
  return config;
}

// The switch may refuse; then packets may be lost.
Task<void> tryTo(SupervisedProcess& process, control::Request request) {
  const std::string operation = operationName(request.operation_case());
  try {
    co_await process.ask(std::move(request));
  } catch (const std::exception& error) {
    log::debug("{}: {}", operation, error.what());
  }
}

}  // namespace

SwitchHandle::SwitchHandle(EventThread& thread, const Programs& programs, const Paths& paths,
                           std::string resource, SwitchConfig config, Ports ports, Holders holders,
                           std::function<void()> onChange)
    : thread_(thread),
      programs_(programs),
      paths_(paths),
      resource_(std::move(resource)),
      name_(fileName(resource_)),
      holders_(std::move(holders)),
      onChange_(std::move(onChange)),
      wanted_(config),
      ports_(std::move(ports)),
      config_(std::move(config)),
      becameReady_(thread.loop()) {
  makeDirectory(paths_.switchDir(name_), 0700);
  makeDirectory(paths_.switchPorts(name_), 0700);
  launch();
}

SwitchHandle::~SwitchHandle() {
  process_.reset();  // first, since its end may start a naming
  thread_.run([this] { naming_.cancel(); });
}

void SwitchHandle::launch() {
  const SwitchConfig config = this->config();
  std::vector<std::string> arguments = {programs_.switchFor(config.uplink),
                                        "--name=" + name_,
                                        "--control=" + paths_.switchControl(name_),
                                        "--ports-dir=" + paths_.switchPorts(name_),
                                        fmt::format("--queue-pairs={}", config.queuePairs),
                                        fmt::format("--mtu={}", config.mtu),
                                        "--log-level=" + programs_.logLevel,
                                        "--log-format=" + programs_.logFormat};
  const UplinkConfig& uplink = config.uplink;
  if (!uplink.netdev.empty())
    arguments.push_back((uplink.xdp ? "--uplink-xdp=" : "--uplink=") + uplink.netdev);
  if (!uplink.pci.empty()) arguments.push_back("--uplink-pci=" + uplink.pci);
  if (!config.cores.empty()) arguments.push_back("--cores=" + config.cores);
  // On the event thread, so that nothing there sees the new process answer before it is in force.
  // The previous one is destroyed by this thread, without the mutex: its end waits for the loop,
  // whose thread may wait for the mutex.
  const auto previous = thread_.run([&] {
    ready_ = false;
    auto process = std::make_shared<SupervisedProcess>(
        thread_,
        SupervisedProcess::Plan{"vdpa-switch of " + resource_, std::move(arguments),
                                paths_.switchControl(name_), programs_.cgroupRoot, kHeartbeat},
        SupervisedProcess::Handlers{
            [this, config](SupervisedProcess& started, control::HelloAnswer hello) {
              return onUp(started, std::move(hello), config);
            },
            [this](const control::Event& event) { onEvent(event); }, onChange_,
            [this](pid_t pid, bool outOfMemory) {
              ready_ = false;
              return closeCrasher(pid, outOfMemory);
            },
            [this](SupervisedProcess& silent) { return onRecovered(silent); }});
    Lock lock(mutex_);
    process_.swap(process);
    offences_.clear();  // of the one before
    return process;
  });
}

void SwitchHandle::restart() {
  thread_.run([this] { ready_ = false; });
  try {
    process()->stop();
  } catch (const std::exception& error) {
    log::error("{}", error.what());  // it hangs in the kernel; the next one moves the packets
  }
  {
    Lock lock(mutex_);
    if (ports_.empty()) config_ = wanted_;
  }
  launch();
}

void SwitchHandle::upgrade() {
  Lock changing(changing_);
  if (stopped_) return;
  {
    Lock lock(mutex_);
    upgrading_ = true;
  }
  restart();
}

void SwitchHandle::go() {
  const auto running = process();
  control::Request request;
  request.mutable_go();
  thread_.wait(tryTo(*running, std::move(request)));
}

// Runs before any other request to the switch.
Task<void> SwitchHandle::onUp(SupervisedProcess& process, control::HelloAnswer hello,
                              SwitchConfig launched) {
  const SwitchConfig running = configOf(hello.vswitch(), launched);
  const bool same = running == launched;
  of010_ = hello.version() == "0.1.0";
  present_ = idsOf(hello);
  Ports kept;
  if (!present_.empty()) {
    const auto answer = co_await process.ask(listRequest());
    learnClosures(answer.ports());
    for (auto& [id, port] : portsOf(answer.ports()))
      if (holders_.unknown(id)) kept.emplace(id, port);
  }
  bool empty = true, upgrading = false;
  {
    Lock lock(mutex_);
    ports_.merge(kept);
    empty = ports_.empty();
    upgrading = upgrading_;
    if (!same && empty) throw std::runtime_error("the one that ran has another configuration");
    config_ = running;
    cores_.assign(hello.vswitch().cores().begin(), hello.vswitch().cores().end());
  }
  if (!same)
    log::warn("vdpa-switch of {} runs with an earlier configuration until its pods are gone",
              resource_);
  // Otherwise packets of the first pods to reconnect to pods that have not yet would be lost.
  if (upgrading && !empty) {
    control::Request request;
    request.mutable_hold()->set_milliseconds(kHold.count());
    co_await tryTo(process, std::move(request));
  }
  co_await settle(process);
  Lock lock(mutex_);
  upgrading_ = false;
  ready_ = true;
  becameReady_.notify();
}

// Requests that timed out during its silence may have been carried out or not.
Task<void> SwitchHandle::onRecovered(SupervisedProcess& process) {
  ready_ = false;
  const auto answer = co_await process.ask(helloRequest());
  present_ = idsOf(answer.hello());
  co_await settle(process);
  ready_ = true;
  becameReady_.notify();
}

// Adds and removes ports until the switch has those of ports_, which may change meanwhile. A port
// that it already has may be a previous pod's, so all get their settings.
Task<void> SwitchHandle::settle(SupervisedProcess& process) {
  std::map<std::string, unsigned> done;  // with the storm limit, which may change meanwhile
  for (;;) {
    std::string id;
    control::Request request;
    {
      Lock lock(mutex_);
      for (const auto& one : present_)
        if (!ports_.contains(one)) id = one;
      if (!id.empty()) {
        request = removal(id);
      } else {
        const auto next = std::find_if(ports_.begin(), ports_.end(), [&](const auto& port) {
          const auto found = done.find(port.first);
          return found == done.end() || found->second != port.second.policy.stormLimit;
        });
        if (next == ports_.end()) co_return;
        id = next->first;
        auto& port =
            present_.contains(id) ? *request.mutable_set_port() : *request.mutable_add_port();
        port = newPort(id, next->second);
        done[id] = next->second.policy.stormLimit;
      }
    }
    if (request.has_remove_port())
      present_.erase(id);
    else
      present_.insert(id);
    const auto operation = request.operation_case();
    try {
      co_await process.ask(std::move(request));
    } catch (const NoAnswer&) {
      throw;
    } catch (const std::runtime_error& error) {  // a bad port must not stop the others
      log::error("vdpa-switch of {}: {} of {}: {}", resource_, operationName(operation), id,
                 error.what());
      // An Attach that waits for the port then tries itself, and gets the error.
      if (operation == control::Request::kAddPort) present_.erase(id);
    }
  }
}

// Called between its end and its next start.
bool SwitchHandle::closeCrasher(pid_t pid, bool outOfMemory) {
  {
    Lock lock(mutex_);
    offences_.clear();  // the next one has all other ports open
  }
  const auto crash = takeSwitchCrash(paths_.switchControl(name_), pid, outOfMemory);
  if (outOfMemory) {
    naming_.cancel();
    naming_ = Job(nameUnallocated());
  }
  if (!crash) return false;
  const std::string event =
      outOfMemory ? fmt::format(
                        "was killed for lack of memory (most likely the pod shares memory "
                        "that it has not touched: {})",
                        holders_.name(crash->port))
                  : fmt::format("crashed with signal {}", crash->signal);
  std::string reason;
  {
    Lock lock(mutex_);
    if (!ports_.contains(crash->port)) return false;
    Closure& closure = closures_[crash->port];
    const auto penalty = kFirstClosure * (1u << std::min(closure.crashes++, kMaxDoublings));
    closure.until = Clock::now() + penalty;
    closure.reason = reason = fmt::format(
        "vdpa-switch of {} {} {} ring {} of {}: the port is closed for {} s; "
        "restart its pod, and look at its image if that happens again",
        resource_, event, crash->served ? "as it served" : "after it had served", crash->ring,
        crash->port, penalty.count());
  }
  log::error("{}", reason);
  return true;
}

// The kernel charges memory that a pod shares without having allocated it to the switch that first
// touches it. The pods with the most of it are the suspects. A virtual machine's memory often is
// not allocated either, so they keep their ports.
Task<void> SwitchHandle::nameUnallocated() {
  std::vector<std::string> ids;
  {
    Lock lock(mutex_);
    for (const auto& [id, port] : ports_) ids.push_back(id);
  }
  std::vector<std::pair<uint64_t, std::string>> suspects;
  const auto deadline = Clock::now() + kAskTime;
  for (const auto& id : ids) {
    if (Clock::now() >= deadline) break;
    const uint64_t bytes = co_await holders_.unallocated(id, kAskTime);
    if (bytes >= kMiB) suspects.emplace_back(bytes, id);
  }
  std::sort(suspects.rbegin(), suspects.rend());
  std::string list;
  for (size_t i = 0; i < std::min(suspects.size(), kMaxSuspects); ++i)
    list += fmt::format("{}{} has {} MiB of it ({})", i == 0 ? "" : ", ",
                        holders_.name(suspects[i].second), suspects[i].first / kMiB,
                        suspects[i].second);
  if (suspects.size() > kMaxSuspects)
    list += fmt::format(", and {} more", suspects.size() - kMaxSuspects);
  log::error(
      "vdpa-switch of {} was killed for lack of memory: it pays for what it touches first of the "
      "memory that pods share without allocating it: {}",
      resource_, list.empty() ? "no pod has any now" : list);
}

// Of a switch that a previous vdpa-datapath started.
void SwitchHandle::learnClosures(const control::PortList& list) {
  Lock lock(mutex_);
  for (const auto& each : list.ports()) {
    if (!each.port().has_closed()) continue;
    const auto& closed = each.port().closed();
    closures_.try_emplace(
        each.port().id(),
        Closure{static_cast<unsigned>(closed.crashes()),
                Clock::now() + std::chrono::milliseconds(closed.milliseconds()), closed.reason()});
  }
}

void SwitchHandle::onEvent(const control::Event& event) {
  if (event.has_port()) {
    const auto& port = event.port();
    Lock lock(mutex_);
    if (port.connected())
      offences_.erase(port.id());
    else if (!port.reason().empty() && ports_.contains(port.id()))
      offences_[port.id()] = fmt::format(
          "vdpa-switch of {} closed the port for what its pod did: {}", resource_, port.reason());
    return;
  }
  if (!event.has_opened()) return;
  {
    Lock lock(mutex_);
    offences_.erase(event.opened().id());
    const auto closure = closures_.find(event.opened().id());
    if (closure == closures_.end()) return;
    closure->second.reason.clear();
  }
  onChange_();
}

// For add_port and set_port. A switch of 0.1.0 ignores the closure.
control::Port SwitchHandle::newPort(const std::string& id, const SwitchPort& wanted) const {
  auto port = controlFromPort(id, wanted.settings);
  setPolicy(port, wanted.policy);
  const auto closure = closures_.find(id);
  if (closure == closures_.end() || closure->second.reason.empty()) return port;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(closure->second.until - Clock::now());
  auto& closed = *port.mutable_closed();
  closed.set_milliseconds(std::max<int64_t>(1, left.count()));  // at 0 it would not report "opened"
  closed.set_crashes(closure->second.crashes);
  closed.set_reason(closure->second.reason);
  return port;
}

std::string SwitchHandle::portProblem(const std::string& id) const {
  Lock lock(mutex_);
  const auto closure = closures_.find(id);
  return closure == closures_.end() ? "" : closure->second.reason;
}

std::string SwitchHandle::offence(const std::string& id) const {
  Lock lock(mutex_);
  const auto offence = offences_.find(id);
  return offence == offences_.end() ? "" : offence->second;
}

SwitchConfig SwitchHandle::config() const {
  Lock lock(mutex_);
  return config_;
}

void SwitchHandle::configure(const SwitchConfig& config) {
  Lock changing(changing_);
  if (stopped_) {  // needed again before it was destroyed
    stopped_ = false;
    wanted_ = config;
    {
      Lock lock(mutex_);
      config_ = config;
    }
    return launch();
  }
  if (config == wanted_) return;
  wanted_ = config;
  if (hasPorts()) {
    log::warn("the new configuration of {} takes effect when its pods are gone", resource_);
    return;
  }
  log::info("restarting vdpa-switch of {} with its new configuration", resource_);
  restart();
}

void SwitchHandle::limitStorms(unsigned stormLimit) {
  std::vector<std::string> changed;
  {
    Lock lock(mutex_);
    stormLimit_ = stormLimit;
    for (auto& [id, port] : ports_) {
      if (port.policy.stormLimit == stormLimit) continue;
      port.policy.stormLimit = stormLimit;
      changed.push_back(id);
    }
  }
  if (changed.empty()) return;
  log::info("the storm limit of {} is now {}", resource_,
            stormLimit == 0 ? "none" : fmt::format("{} frames/s", stormLimit));
  thread_.wait(setPorts(std::move(changed)));
}

// A switch that is not ready gets the settings when it comes up.
Task<void> SwitchHandle::setPorts(std::vector<std::string> ids) {
  for (const auto& id : ids) {
    if (!ready_ || !present_.contains(id)) continue;
    control::Request request;
    {
      Lock lock(mutex_);
      const auto port = ports_.find(id);
      if (port == ports_.end()) continue;
      *request.mutable_set_port() = newPort(id, port->second);
    }
    try {
      co_await change(std::move(request));
    } catch (const NoAnswer& error) {
      log::debug("cannot change the port of {}: {}", id, error.what());
    } catch (const std::runtime_error& error) {
      log::error("vdpa-switch of {}: set_port of {}: {}", resource_, id, error.what());
    }
  }
}

void SwitchHandle::addPort(const std::string& id, const SwitchPort& port) {
  // Stored first, so that a switch that starts meanwhile gets it too.
  {
    Lock lock(mutex_);
    ports_[id] = port;
    if (stormLimit_) ports_[id].policy.stormLimit = *stormLimit_;
  }
  try {
    thread_.wait(put(id, Clock::now() + kUpTime));
  } catch (const NoAnswer& error) {
    throw RefusedError(Refusal::aborted,
                       fmt::format("cannot add a port for {} to the switch of {}: {}", id,
                                   resource_, error.what()));
  }
}

// Waits for a switch that is just starting, and for the replacement of one that would ignore a
// setting.
Task<void> SwitchHandle::put(std::string id, Clock::time_point deadline) {
  std::string newer;
  {
    Lock lock(mutex_);
    const auto port = ports_.find(id);
    if (port == ports_.end()) co_return;
    newer = unknownTo010(port->second.settings);
  }
  while (!ready_ || (of010_ && !newer.empty())) {
    if (const auto silence = process()->silence(); !silence.empty()) throw NoAnswer(silence);
    const bool inTime = co_await becameReady_.waitUntil(deadline);
    if (inTime) continue;
    if (!ready_) throw NoAnswer(status().reason);
    throw NoAnswer(
        fmt::format("{} needs a newer vdpa-switch than the one that runs, {}, which is being "
                    "replaced: try again, and if it stays, see the log of vdpa-datapath",
                    newer, status().version));
  }
  control::Request request;
  {
    Lock lock(mutex_);
    const auto port = ports_.find(id);
    if (port == ports_.end()) co_return;  // it was removed meanwhile
    *request.mutable_add_port() = newPort(id, port->second);
  }
  if (!present_.insert(id).second) co_return;  // it got the port when it started
  co_await change(std::move(request));
}

void SwitchHandle::removePort(const std::string& id) {
  {
    Lock lock(mutex_);
    ports_.erase(id);
    closures_.erase(id);  // they don't apply to the device's next pod
    offences_.erase(id);
  }
  thread_.wait(takeAway(id));
  Lock changing(changing_);
  if (!hasPorts() && wanted_ != config() && !stopped_) restart();
}

Task<void> SwitchHandle::takeAway(std::string id) {
  if (!ready_ || present_.erase(id) == 0) co_return;
  control::Request request = removal(id);
  try {
    co_await change(std::move(request));
  } catch (const NoAnswer& error) {
    // It is down and restarts without the port, or it is silent and loses the port once it answers.
    log::debug("cannot remove the port of {}: {}", id, error.what());
  } catch (const std::runtime_error& error) {
    log::warn("cannot remove the port of {} from the switch of {}: {}", id, resource_,
              error.what());
  }
}

// Without an answer, the switch's ports are unknown until it restarts or recovers.
Task<void> SwitchHandle::change(control::Request request) {
  const auto running = process();
  try {
    co_await running->ask(std::move(request));
  } catch (const NoAnswer&) {
    if (running == process()) ready_ = false;
    throw;
  }
}

std::string SwitchHandle::portSocket(const std::string& id) const {
  return paths_.switchPort(name_, id);
}

bool SwitchHandle::hasPorts() const {
  Lock lock(mutex_);
  return !ports_.empty();
}

bool SwitchHandle::hasPort(const std::string& id) const {
  Lock lock(mutex_);
  return ports_.contains(id);
}

SwitchHandle::Ports SwitchHandle::readPorts() {
  return portsOf(process()->call(listRequest()).ports());
}

std::vector<DeviceCounters> SwitchHandle::readCounters(const std::vector<std::string>& ids) {
  return readStatistics(ids, kCountersTime).ports;
}

SwitchHandle::Statistics SwitchHandle::readStatistics(const std::vector<std::string>& ids,
                                                      std::chrono::milliseconds timeout) {
  control::Request request;
  request.mutable_stats()->mutable_ports()->Add(ids.begin(), ids.end());
  const auto answer = process()->call(std::move(request), timeout);
  Statistics statistics;
  for (const auto& port : answer.switch_stats().ports()) {
    DeviceCounters device{port.id(),         port.rx_packets(), port.rx_bytes(),
                          port.tx_packets(), port.tx_bytes(),   {}};
    for (const auto& drop : port.drops()) device.drops[drop.name()] = drop.value();
    statistics.ports.push_back(std::move(device));
  }
  Lock lock(mutex_);
  for (const auto busy : answer.switch_stats().busy_ns()) {
    Poller poller{std::nullopt, std::chrono::nanoseconds(busy)};
    if (const size_t number = statistics.pollers.size(); number < cores_.size())
      poller.core = cores_[number];
    statistics.pollers.push_back(poller);
  }
  return statistics;
}

bool SwitchHandle::waitUp(std::chrono::steady_clock::time_point deadline) const {
  return process()->waitUp(deadline);
}

SupervisedProcess::Status SwitchHandle::status() const {
  return process()->status();
}

std::string SwitchHandle::problem() const {
  const auto status = this->status();
  if (status.up) return "";
  Lock lock(mutex_);
  return upgrading_ && status.deaths == 0 ? "" : status.reason;
}

void SwitchHandle::stop() {
  Lock changing(changing_);
  stopped_ = true;
  process()->stop();
}

std::shared_ptr<SupervisedProcess> SwitchHandle::process() const {
  Lock lock(mutex_);
  return process_;
}

}  // namespace vdpa::datapath
