#include "deviceplugin/datapath/switch/switch.h"

#include <fmt/core.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/stop_signals.h"
#include "common/unique_fd.h"
#include "common/version.h"
#include "deviceplugin/datapath/switch/mac_table.h"
#include "deviceplugin/datapath/switch/poller.h"
#include "deviceplugin/datapath/switch/rate_limit.h"
#include "deviceplugin/datapath/switch/uplink.h"
#include "deviceplugin/datapath/switch/vhost_ports.h"

namespace vdpa::vswitch {
namespace {

constexpr unsigned kPacketsPerPoller =
    4096;  // packets are copied in and out, so only bursts are in flight
constexpr unsigned kUplinkPackets = 4096;
constexpr std::chrono::milliseconds kMaxHold{10000};
constexpr std::chrono::milliseconds kMaxClosure = std::chrono::hours(24);
using Clock = std::chrono::steady_clock;
constexpr unsigned kFrameOverhead = 18;  // bytes: Ethernet header and a VLAN tag

unsigned pollersOf(const SwitchOptions& options) {
  return std::max<unsigned>(1, static_cast<unsigned>(options.cores.size()));
}

uint64_t macOf(const std::string& text) {
  unsigned octets[6];
  int length = 0;
  if (std::sscanf(text.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x%n", &octets[0], &octets[1], &octets[2],
                  &octets[3], &octets[4], &octets[5], &length) != 6 ||
      static_cast<size_t>(length) != text.size() || (octets[0] & 1))
    throw std::runtime_error(
        fmt::format("mac '{}': expected a unicast address such as 02:00:00:00:00:01", text));
  uint64_t mac = 0;
  for (const unsigned octet : octets) mac = mac << 8 | octet;
  return mac;
}

int64_t numberOf(const nlohmann::json& arguments, const char* name, int64_t otherwise,
                 int64_t least, int64_t most) {
  const auto number = arguments.value(name, otherwise);
  if (number < least || number > most)
    throw std::runtime_error(fmt::format("{} {}: expected {} to {}", name, number, least, most));
  return number;
}

std::optional<VhostPorts::Closure> closureOf(const nlohmann::json& arguments) {
  const auto closed = arguments.find("closed");
  if (closed == arguments.end()) return std::nullopt;
  return VhostPorts::Closure{
      std::chrono::milliseconds(numberOf(*closed, "ms", 1, 1, kMaxClosure.count())),
      static_cast<unsigned>(numberOf(*closed, "crashes", 1, 1, UINT32_MAX)),
      closed->value("reason", "")};
}

// Those of a switch that was killed: a port that nobody wants any more would leave its socket, or
// the mark of a closed one, for ever.
void removeSockets(const std::string& directory) {
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    if (entry.is_socket() || entry.path().extension() == ".closed")
      std::filesystem::remove(entry.path());
}

}  // namespace

Switch::Switch(SwitchOptions options)
    : options_(std::move(options)),
      signals_(takeStopSignals()),
      eventReady_(checked(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "cannot create an eventfd")),
      eal_(
          std::filesystem::path(options_.control).parent_path(),
          kPacketsPerPoller * pollersOf(options_) + (options_.uplink.empty() ? 0 : kUplinkPackets),
          options_.uplink.empty() ? options_.mtu + kFrameOverhead : Uplink::slotBytes(options_.mtu),
          VhostPorts::kMaxPorts * options_.queuePairs * 2),
      serving_(options_.control, pollersOf(options_), MacTable::kMaxPorts),
      publisher_(pollersOf(options_)),
      control_(
          options_.control,
          [this](const std::string& operation, const nlohmann::json& arguments) {
            return handle(operation, arguments);
          },
          options_.controlFd) {
  std::filesystem::create_directories(options_.portsDirectory);
  removeSockets(options_.portsDirectory);
  if (!options_.uplink.empty())
    uplink_ =
        std::make_unique<Uplink>(options_.uplink, pollersOf(options_), options_.mtu, eal_.pool());
  for (unsigned number = 0; number < pollersOf(options_); ++number)
    pollers_.push_back(std::make_unique<Poller>(
        number, options_.cores.empty() ? std::nullopt : std::optional(options_.cores[number]),
        publisher_, table_, eal_.pool(), uplink_.get(), stalled_, serving_.cell(number)));
  ports_ = std::make_unique<VhostPorts>(
      VhostPorts::Options{options_.portsDirectory, options_.queuePairs, pollersOf(options_),
                          uplink_ != nullptr, options_.mtu},
      publisher_, table_, stalled_, serving_,
      VhostPorts::Events{
          [this](const std::string& id, bool connected, const std::string& reason) {
            queueEvent(
                {{"event", "port"}, {"id", id}, {"connected", connected}, {"reason", reason}});
          },
          [this](const std::string& id) {
            queueEvent({{"event", "opened"}, {"id", id}});
          }});
}

void Switch::queueEvent(nlohmann::json event) {
  {
    Lock lock(eventsMutex_);
    events_.push_back(std::move(event));
  }
  ::eventfd_write(eventReady_.get(), 1);
}

void Switch::sendEvents() {
  eventfd_t ignored;
  ::eventfd_read(eventReady_.get(), &ignored);
  std::vector<nlohmann::json> events;
  {
    Lock lock(eventsMutex_);
    events.swap(events_);
  }
  for (const auto& event : events) control_.broadcast(event);
}

void Switch::run() {
  log::info("switch {}: {} poller(s), {} queue pair(s) a port, mtu {}, uplink {}", options_.name,
            pollers_.size(), options_.queuePairs, options_.mtu,
            options_.uplink.empty() ? "none" : options_.uplink);
  while (!stop_) {
    pollfd fds[] = {{signals_.get(), POLLIN, 0},
                    {control_.fd(), POLLIN, 0},
                    {eventReady_.get(), POLLIN, 0},
                    {ports_->failureFd(), POLLIN, 0},
                    {stalled_.fd(), POLLIN, 0}};
    if (::poll(fds, std::size(fds), untilNextDeadline()) < 0 && errno != EINTR)
      throw systemError(errno, "cannot poll");
    if (fds[0].revents) stop_ = true;
    if (fds[1].revents) control_.process();
    if (fds[3].revents) ports_->handleFailures();
    if (fds[4].revents) ports_->handleStalls();
    ports_->openDue();
    if (heldUntil_ && Clock::now() >= *heldUntil_) release("nobody said go");
    if (fds[2].revents) sendEvents();
  }
  // What was taken from one pod reaches the other before a port is closed.
  ports_->hold(true);
}

int Switch::untilNextDeadline() const {
  const int opening = ports_->untilNextOpening();
  if (!heldUntil_) return opening;
  const auto wait = std::chrono::ceil<std::chrono::milliseconds>(*heldUntil_ - Clock::now());
  const auto held = static_cast<int>(std::max<int64_t>(0, wait.count()));
  return opening < 0 ? held : std::min(opening, held);
}

void Switch::release(std::string_view reason) {
  if (!heldUntil_) return;
  heldUntil_.reset();
  ports_->hold(false);
  log::info("packets pass: {}", reason);
}

PortSettings Switch::settingsOf(const nlohmann::json& arguments) const {
  PortSettings settings;
  settings.mac = macOf(arguments.at("mac").get<std::string>());
  settings.vlan = static_cast<uint16_t>(numberOf(arguments, "vlan", 0, 0, 4094));
  settings.mtu = static_cast<unsigned>(numberOf(arguments, "mtu", options_.mtu, 68, options_.mtu));
  settings.linkUp = arguments.value("link_up", true);
  settings.spoofCheck = arguments.value("spoof_check", false);
  settings.trust = arguments.value("trust", false);
  settings.maxTxRate =
      static_cast<unsigned>(numberOf(arguments, "max_tx_rate", 0, 0, RateLimit::kMaxMbits));
  return settings;
}

nlohmann::json Switch::handle(const std::string& operation, const nlohmann::json& arguments) {
  if (operation == "hello")
    return {{"program", "vdpa-switch"},
            {"version", programVersion()},
            {"pid", ::getpid()},
            {"name", options_.name},
            {"queue_pairs", options_.queuePairs},
            {"mtu", options_.mtu},
            {"uplink", options_.uplink},
            {"cores", options_.cores},
            {"ports", ports_->ids()}};
  if (operation == "add_port") {
    const auto id = arguments.at("id").get<std::string>();
    if (id.empty() || id.find('/') != std::string::npos)
      throw std::runtime_error(fmt::format("port id '{}': expected a device ID", id));
    return {{"socket", ports_->add(id, settingsOf(arguments), closureOf(arguments))}};
  }
  if (operation == "set_port") {
    ports_->set(arguments.at("id").get<std::string>(), settingsOf(arguments));
    return nlohmann::json::object();
  }
  if (operation == "remove_port") {
    ports_->remove(arguments.at("id").get<std::string>());
    return nlohmann::json::object();
  }
  if (operation == "ports") return {{"ports", ports_->describe()}};
  if (operation == "stats") {
    auto busy = nlohmann::json::array();
    for (const auto& poller : pollers_) busy.push_back(poller->busy().count());
    return {{"ports", ports_->stats(arguments.value("ports", std::vector<std::string>()))},
            {"busy_ns", busy}};
  }
  if (operation == "hold") {
    heldUntil_ =
        Clock::now() + std::chrono::milliseconds(numberOf(arguments, "ms", 0, 0, kMaxHold.count()));
    ports_->hold(true);
    return nlohmann::json::object();
  }
  if (operation == "go") {
    release("as told");
    return nlohmann::json::object();
  }
  if (operation == "stop") {
    stop_ = true;
    return nlohmann::json::object();
  }
  throw std::runtime_error(fmt::format("unknown operation '{}'", operation));
}

}  // namespace vdpa::vswitch
