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
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/naming.h"
#include "common/number_list.h"
#include "common/paths.h"
#include "common/serving_page.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/device_counters.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/programs.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/processes/supervised_process.h"

namespace vdpa::datapath {
namespace {

// For a switch that starts anew.
constexpr auto kUpTime = std::chrono::seconds(4);
constexpr auto kHeartbeat = std::chrono::seconds(5);
// For its pods to connect to one that was renewed.
constexpr auto kHold = std::chrono::milliseconds(1000);
// For a port whose pod crashed the switch, twice as long each time: far longer than what the switch
// closes a port for by itself, since all pods lose packets by a crash.
constexpr auto kFirstClosure = std::chrono::seconds(60);
constexpr unsigned kMaxDoublings = 6;
// For all workers together to say what their pods have not allocated.
constexpr auto kAskTime = std::chrono::seconds(1);
constexpr uint64_t kMiB = 1 << 20;  // less of it is not worth a word
constexpr size_t kMaxSuspects = 3;

nlohmann::json portArguments(const std::string& id, const PortSettings& settings) {
  return {{"id", id},
          {"mac", settings.mac},
          {"vlan", settings.vlan},
          {"mtu", settings.mtu},
          {"link_up", settings.linkState != "disable"},
          {"spoof_check", settings.spoofCheck},
          {"trust", settings.trust},
          {"max_tx_rate", settings.maxTxRate}};
}

PortSettings portOf(const nlohmann::json& json) {
  PortSettings port;
  json.at("mac").get_to(port.mac);
  json.at("vlan").get_to(port.vlan);
  json.at("mtu").get_to(port.mtu);
  json.at("spoof_check").get_to(port.spoofCheck);
  port.linkState = json.at("link_up").get<bool>() ? "enable" : "disable";
  port.trust = json.value("trust", port.trust);
  port.maxTxRate = json.value("max_tx_rate", port.maxTxRate);
  return port;
}

SwitchHandle::Ports portsOf(const nlohmann::json& answer) {
  SwitchHandle::Ports ports;
  for (const auto& port : answer.at("ports"))
    ports[port.at("id").get<std::string>()] = portOf(port);
  return ports;
}

std::vector<unsigned> coresOf(const std::string& text) {
  std::vector<unsigned> cores;
  for (const auto& range : parseNumberList(text).value_or(std::vector<NumberRange>()))
    for (unsigned cpu = range.first; cpu <= range.last; ++cpu) cores.push_back(cpu);
  return cores;
}

// What the switch says it runs with. Cores that are the same are written as in `launched`.
SwitchConfig configOf(const nlohmann::json& hello, const SwitchConfig& launched) {
  SwitchConfig config{hello.value("queue_pairs", 0u), hello.value("mtu", 0u),
                      hello.value("uplink", ""), launched.cores};
  const auto cores = hello.value("cores", coresOf(launched.cores));
  if (cores != coresOf(launched.cores)) config.cores = fmt::format("{}", fmt::join(cores, ","));
  return config;
}

// An operation that a switch of another release may not know.
Task<void> tryTo(SupervisedProcess& process, std::string operation, nlohmann::json arguments) {
  try {
    co_await process.ask(operation, std::move(arguments));
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
  std::vector<std::string> arguments = {programs_.vswitch,
                                        "--name=" + name_,
                                        "--control=" + paths_.switchControl(name_),
                                        "--ports-dir=" + paths_.switchPorts(name_),
                                        fmt::format("--queue-pairs={}", config.queuePairs),
                                        fmt::format("--mtu={}", config.mtu),
                                        "--log-level=" + programs_.logLevel,
                                        "--log-format=" + programs_.logFormat};
  if (!config.uplink.empty()) arguments.push_back("--uplink=" + config.uplink);
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
            [this, config](SupervisedProcess& started, nlohmann::json hello) {
              return onUp(started, std::move(hello), config);
            },
            [this](const nlohmann::json& event) { onEvent(event); }, onChange_,
            [this](pid_t pid, bool outOfMemory) {
              ready_ = false;
              return closeCrasher(pid, outOfMemory);
            },
            [this](SupervisedProcess& silent) { return onRecovered(silent); }});
    Lock lock(mutex_);
    process_.swap(process);
    return process;
  });
}

void SwitchHandle::restart() {
  thread_.run([this] { ready_ = false; });
  try {
    process()->stop();
  } catch (const std::exception& error) {
    log::error("{}", error.what());  // it moves no packets any more; the next one does
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
  thread_.wait(tryTo(*running, "go", nlohmann::json::object()));
}

// Before anybody else may ask the switch for anything.
Task<void> SwitchHandle::onUp(SupervisedProcess& process, nlohmann::json hello,
                              SwitchConfig launched) {
  const SwitchConfig running = configOf(hello, launched);
  const bool same = running == launched;
  const auto ids = hello.value("ports", std::vector<std::string>());
  present_ = {ids.begin(), ids.end()};
  Ports kept;
  if (!ids.empty()) {
    const auto answer = co_await process.ask("ports");
    learnClosures(answer);
    for (auto& [id, settings] : portsOf(answer))
      if (holders_.unknown(id)) kept.emplace(id, settings);
  }
  bool empty = true, upgrading = false;
  {
    Lock lock(mutex_);
    ports_.merge(kept);
    empty = ports_.empty();
    upgrading = upgrading_;
    if (!same && empty) throw std::runtime_error("the one that ran has another configuration");
    config_ = running;
  }
  if (!same)
    log::warn("vdpa-switch of {} runs with an earlier configuration until its pods are gone",
              resource_);
  // Or what the first pod sends would be lost on the way to those that aren't connected yet.
  if (upgrading && !empty) {
    nlohmann::json hold = {{"ms", kHold.count()}};
    co_await tryTo(process, "hold", std::move(hold));
  }
  co_await settle(process);
  Lock lock(mutex_);
  upgrading_ = false;
  ready_ = true;
  becameReady_.notify();
}

// What was asked for in its silence and given up may have been done or not.
Task<void> SwitchHandle::onRecovered(SupervisedProcess& process) {
  ready_ = false;
  const auto hello = co_await process.ask("hello");
  const auto ids = hello.value("ports", std::vector<std::string>());
  present_ = {ids.begin(), ids.end()};
  co_await settle(process);
  ready_ = true;
  becameReady_.notify();
}

// Gives the switch what it ought to have and hasn't, and takes away what it shouldn't have, until
// nothing is left: ports may come and go meanwhile. A port that it has may be a former pod's.
Task<void> SwitchHandle::settle(SupervisedProcess& process) {
  std::set<std::string> done;
  for (;;) {
    std::string operation, id;
    nlohmann::json arguments;
    {
      Lock lock(mutex_);
      for (const auto& one : present_)
        if (!ports_.contains(one)) id = one;
      if (!id.empty()) {
        operation = "remove_port";
        arguments = {{"id", id}};
      } else {
        const auto next = std::find_if(ports_.begin(), ports_.end(), [&](const auto& port) {
          return !done.contains(port.first);
        });
        if (next == ports_.end()) co_return;
        id = next->first;
        operation = present_.contains(id) ? "set_port" : "add_port";
        arguments = newPort(id, next->second);
      }
    }
    if (operation == "remove_port")
      present_.erase(id);
    else
      present_.insert(id);
    done.insert(id);
    try {
      co_await process.ask(operation, std::move(arguments));
    } catch (const NoAnswer&) {
      throw;
    } catch (const std::runtime_error& error) {  // one bad port is not the others' fault
      log::error("vdpa-switch of {}: {} of {}: {}", resource_, operation, id, error.what());
      if (operation == "add_port") present_.erase(id);  // whoever waits for it tries for itself
    }
  }
}

// Between its end and its next start.
bool SwitchHandle::closeCrasher(pid_t pid, bool outOfMemory) {
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

// A switch whose pods' memory was allocated is not what takes all memory: those whose memory was
// not are suspects, the first one most of all. A virtual machine's often is not, so they keep their
// ports.
Task<void> SwitchHandle::nameUnallocated() {
  std::vector<std::string> ids;
  {
    Lock lock(mutex_);
    for (const auto& [id, settings] : ports_) ids.push_back(id);
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

// From a switch that another vdpa-datapath started.
void SwitchHandle::learnClosures(const nlohmann::json& answer) {
  Lock lock(mutex_);
  for (const auto& port : answer.at("ports")) {
    const auto closed = port.find("closed");
    if (closed == port.end()) continue;
    closures_.try_emplace(
        port.at("id").get<std::string>(),
        Closure{closed->at("crashes").get<unsigned>(),
                Clock::now() + std::chrono::milliseconds(closed->at("ms").get<int64_t>()),
                closed->at("reason").get<std::string>()});
  }
}

void SwitchHandle::onEvent(const nlohmann::json& event) {
  if (event.value("event", "") != "opened") return;
  {
    Lock lock(mutex_);
    const auto closure = closures_.find(event.value("id", ""));
    if (closure == closures_.end()) return;
    closure->second.reason.clear();
  }
  onChange_();
}

// What add_port and set_port take. A switch of 0.1.0 ignores that the port is to be closed.
nlohmann::json SwitchHandle::newPort(const std::string& id, const PortSettings& settings) const {
  auto arguments = portArguments(id, settings);
  const auto closure = closures_.find(id);
  if (closure == closures_.end() || closure->second.reason.empty()) return arguments;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(closure->second.until - Clock::now());
  arguments["closed"] = {
      {"ms", std::max<int64_t>(1, left.count())},  // at 0 it would not say "opened"
      {"crashes", closure->second.crashes},
      {"reason", closure->second.reason}};
  return arguments;
}

std::string SwitchHandle::portProblem(const std::string& id) const {
  Lock lock(mutex_);
  const auto closure = closures_.find(id);
  return closure == closures_.end() ? "" : closure->second.reason;
}

SwitchConfig SwitchHandle::config() const {
  Lock lock(mutex_);
  return config_;
}

void SwitchHandle::configure(const SwitchConfig& config) {
  Lock changing(changing_);
  if (stopped_) {  // and did not end, or it would not be here; it is wanted again
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

void SwitchHandle::addPort(const std::string& id, const PortSettings& settings) {
  // Known before it is there: a switch that starts meanwhile gets it too.
  {
    Lock lock(mutex_);
    ports_[id] = settings;
  }
  try {
    thread_.wait(put(id, Clock::now() + kUpTime));
  } catch (const NoAnswer& error) {
    throw RefusedError(Refusal::aborted,
                       fmt::format("cannot add a port for {} to the switch of {}: {}", id,
                                   resource_, error.what()));
  }
}

// It may be a new switch's first moment.
Task<void> SwitchHandle::put(std::string id, Clock::time_point deadline) {
  while (!ready_) {
    if (const auto silence = process()->silence(); !silence.empty()) throw NoAnswer(silence);
    const bool inTime = co_await becameReady_.waitUntil(deadline);
    if (!inTime) throw NoAnswer(status().reason);
  }
  if (!present_.insert(id).second) co_return;  // it has it since it started
  PortSettings settings;
  {
    Lock lock(mutex_);
    settings = ports_[id];
  }
  auto arguments = portArguments(id, settings);
  co_await change("add_port", std::move(arguments));
}

void SwitchHandle::removePort(const std::string& id) {
  {
    Lock lock(mutex_);
    ports_.erase(id);
    closures_.erase(id);  // the next pod's start is its own
  }
  thread_.wait(takeAway(id));
  Lock changing(changing_);
  if (!hasPorts() && wanted_ != config() && !stopped_) restart();
}

Task<void> SwitchHandle::takeAway(std::string id) {
  if (!ready_ || present_.erase(id) == 0) co_return;
  nlohmann::json arguments = {{"id", id}};
  try {
    co_await change("remove_port", std::move(arguments));
  } catch (const NoAnswer& error) {
    // It is down, and comes back without the port, or silent, and loses it once it answers.
    log::debug("cannot remove the port of {}: {}", id, error.what());
  } catch (const std::runtime_error& error) {
    log::warn("cannot remove the port of {} from the switch of {}: {}", id, resource_,
              error.what());
  }
}

// Without an answer it isn't known what the switch has, until it starts again or recovers.
Task<void> SwitchHandle::change(std::string operation, nlohmann::json arguments) {
  const auto running = process();
  try {
    co_await running->ask(std::move(operation), std::move(arguments));
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
  return portsOf(process()->call("ports"));
}

std::vector<DeviceCounters> SwitchHandle::readCounters(const std::vector<std::string>& ids) {
  std::vector<DeviceCounters> counters;
  const auto answer = process()->call("stats", {{"ports", ids}});
  for (const auto& port : answer.at("ports"))
    counters.push_back({port.at("id").get<std::string>(), port.at("rx_packets").get<uint64_t>(),
                        port.at("rx_bytes").get<uint64_t>(), port.at("tx_packets").get<uint64_t>(),
                        port.at("tx_bytes").get<uint64_t>(),
                        port.at("drops").get<std::map<std::string, uint64_t>>()});
  return counters;
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
