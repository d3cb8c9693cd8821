#include "deviceplugin/datapath/switch/switch.h"

#include <fmt/core.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/control_channel.h"
#include "common/control_port.h"
#include "common/control_stream.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/stop_signals.h"
#include "common/unique_fd.h"
#include "common/version.h"
#include "deviceplugin/datapath/switch/mac_table.h"
#include "deviceplugin/datapath/switch/poller.h"
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

int64_t checkedNumber(const char* name, int64_t number, int64_t least, int64_t most) {
  if (number < least || number > most)
    throw std::runtime_error(fmt::format("{} {}: expected {} to {}", name, number, least, most));
  return number;
}

std::optional<VhostPorts::Closure> closureOf(const control::Port& port) {
  if (!port.has_closed()) return std::nullopt;
  const auto& closed = port.closed();
  return VhostPorts::Closure{
      std::chrono::milliseconds(checkedNumber("ms", closed.milliseconds(), 1, kMaxClosure.count())),
      static_cast<unsigned>(checkedNumber("crashes", closed.crashes(), 1, UINT32_MAX)),
      closed.reason()};
}

// Removes those of a switch that was killed: the socket of a port that no longer exists, or the
// mark of a closed one, would stay for ever.
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
          [this](const control::Request& request, Descriptors&) { return answer(request); },
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
      VhostPorts::Events{[this](const std::string& id, bool connected, const std::string& reason) {
                           control::Event event;
                           auto& port = *event.mutable_port();
                           port.set_id(id);
                           port.set_connected(connected);
                           port.set_reason(reason);
                           queueEvent(std::move(event));
                         },
                         [this](const std::string& id) {
                           control::Event event;
                           event.mutable_opened()->set_id(id);
                           queueEvent(std::move(event));
                         }});
}

void Switch::queueEvent(control::Event event) {
  {
    Lock lock(eventsMutex_);
    events_.push_back(std::move(event));
  }
  ::eventfd_write(eventReady_.get(), 1);
}

void Switch::sendEvents() {
  eventfd_t ignored;
  ::eventfd_read(eventReady_.get(), &ignored);
  std::vector<control::Event> events;
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
    if (heldUntil_ && Clock::now() >= *heldUntil_) release("no go-ahead in time");
    if (fds[2].revents) sendEvents();
  }
  // Frames taken from one pod reach the other before a port is closed.
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
  log::info("forwarding enabled ({})", reason);
}

std::string Switch::addPort(const control::Port& port) {
  if (port.id().empty() || port.id().find('/') != std::string::npos)
    throw std::runtime_error(fmt::format("port id '{}': expected a device ID", port.id()));
  return ports_->add(port.id(), portFromControl(port, options_.mtu), closureOf(port));
}

control::HelloAnswer Switch::hello() const {
  control::HelloAnswer hello;
  hello.set_program("vdpa-switch");
  hello.set_version(programVersion());
  hello.set_pid(::getpid());
  auto& vswitch = *hello.mutable_vswitch();
  vswitch.set_name(options_.name);
  vswitch.set_queue_pairs(options_.queuePairs);
  vswitch.set_mtu(options_.mtu);
  vswitch.set_uplink(options_.uplink);
  for (const unsigned core : options_.cores) vswitch.add_cores(core);
  for (const auto& id : ports_->ids()) vswitch.add_ports(id);
  return hello;
}

control::Answer Switch::answer(const control::Request& request) {
  using control::Request;
  control::Answer answer;
  switch (request.operation_case()) {
    case Request::kHello:
      *answer.mutable_hello() = hello();
      break;
    case Request::kAddPort:
      answer.mutable_add_port()->set_socket(addPort(request.add_port()));
      break;
    case Request::kSetPort:
      ports_->set(request.set_port().id(), portFromControl(request.set_port(), options_.mtu));
      break;
    case Request::kRemovePort:
      ports_->remove(request.remove_port().id());
      break;
    case Request::kPorts:
      *answer.mutable_ports() = ports_->describe();
      break;
    case Request::kStats: {
      const auto& ids = request.stats().ports();
      *answer.mutable_switch_stats() = ports_->stats({ids.begin(), ids.end()});
      for (const auto& poller : pollers_)
        answer.mutable_switch_stats()->add_busy_ns(poller->busy().count());
      break;
    }
    case Request::kHold:
      heldUntil_ = Clock::now() + std::chrono::milliseconds(checkedNumber(
                                      "ms", request.hold().milliseconds(), 0, kMaxHold.count()));
      ports_->hold(true);
      break;
    case Request::kGo:
      release("requested");
      break;
    case Request::kStop:
      stop_ = true;
      break;
    case Request::OPERATION_NOT_SET:
      break;  // ControlServer has answered
  }
  return answer;
}

}  // namespace vdpa::vswitch
