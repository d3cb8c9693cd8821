#include "deviceplugin/datapath/switch/switch.h"

#include <fmt/core.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/control_channel.h"
#include "common/control_port.h"
#include "common/control_stream.h"
#include "common/event_loop.h"
#include "common/log.h"
#include "common/stop_signals.h"
#include "common/unique_fd.h"
#include "common/uplink_config.h"
#include "common/version.h"
#include "deviceplugin/datapath/switch/forwarding/counters.h"
#include "deviceplugin/datapath/switch/forwarding/cycles.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/poller.h"
#include "deviceplugin/datapath/switch/forwarding/uplink.h"
#include "deviceplugin/datapath/switch/ports/ports.h"
#include "deviceplugin/datapath/switch/program.h"
#include "deviceplugin/datapath/switch/uplink/uplink_options.h"

namespace vdpa::vswitch {
namespace {

constexpr std::chrono::milliseconds kMaxHold{10000};
constexpr std::chrono::milliseconds kMaxClosure = std::chrono::hours(24);

unsigned pollersOf(const SwitchOptions& options) {
  return std::max<unsigned>(1, static_cast<unsigned>(options.cores.size()));
}

int64_t checkedNumber(const char* name, int64_t number, int64_t least, int64_t most) {
  if (number < least || number > most)
    throw std::runtime_error(fmt::format("{} {}: expected {} to {}", name, number, least, most));
  return number;
}

std::optional<Ports::Closure> closureOf(const control::Port& port) {
  if (!port.has_closed()) return std::nullopt;
  const auto& closed = port.closed();
  return Ports::Closure{
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

std::unique_ptr<Uplink> openUplink(const SwitchOptions& options, const OpenUplink& open) {
  if (options.uplink.empty()) return nullptr;
  UplinkOptions uplink;
  uplink.netdev = options.uplink.netdev;
  uplink.xdp = options.uplink.xdp;
  uplink.pci = options.uplink.pci;
  uplink.queues = pollersOf(options);
  uplink.mtu = options.mtu;
  uplink.directory = std::filesystem::path(options.control).parent_path();
  return open(uplink);
}

}  // namespace

Switch::Switch(SwitchOptions options, const OpenUplink& open)
    : options_(std::move(options)),
      signals_(takeStopSignals()),
      uplink_(openUplink(options_, open)),
      serving_(options_.control, pollersOf(options_), MacTable::kMaxPorts),
      epoch_(pollersOf(options_)),
      control_(
          options_.control,
          [this](const control::Request& request, Descriptors& descriptors) {
            return answer(request, descriptors);
          },
          options_.controlFd),
      signalWatch_(loop_, signals_.get(), EPOLLIN, [this](uint32_t) { stop(); }),
      controlWatch_(loop_, control_.fd(), EPOLLIN, [this](uint32_t) { control_.process(); }),
      holding_(loop_, [this] { release("no go-ahead in time"); }) {
  std::filesystem::create_directories(options_.portsDirectory);
  removeSockets(options_.portsDirectory);
  for (unsigned number = 0; number < pollersOf(options_); ++number)
    pollers_.push_back(std::make_unique<Poller>(
        number, options_.cores.empty() ? std::nullopt : std::optional(options_.cores[number]),
        Poller::Shared{epoch_, portTable_, table_, offences_, uplink_.get()},
        serving_.cell(number)));
  Ports::Options ports;
  ports.directory = options_.portsDirectory;
  ports.queuePairs = options_.queuePairs;
  ports.uplink = uplink_ != nullptr;
  ports.uplinkMtu = options_.mtu;
  ports.cyclesPerSecond = measureCyclesPerSecond();
  ports_ = std::make_unique<Ports>(
      std::move(ports),
      Ports::Shared{loop_, epoch_, portTable_, table_, offences_, serving_, pollers_},
      Ports::Events{[this](const std::string& id, bool connected, const std::string& reason) {
                      control::Event event;
                      auto& port = *event.mutable_port();
                      port.set_id(id);
                      port.set_connected(connected);
                      port.set_reason(reason);
                      send(std::move(event));
                    },
                    [this](const std::string& id) {
                      control::Event event;
                      event.mutable_opened()->set_id(id);
                      send(std::move(event));
                    }});
}

// Without pollers, a port's connection can be closed at once.
Switch::~Switch() {
  if (ports_) ports_->end();
  pollers_.clear();
  epoch_.runAll();
}

// Not from within an answer: a client that doesn't read would be dropped there.
void Switch::send(control::Event event) {
  loop_.post([this, event = std::move(event)] { control_.broadcast(event); });
}

void Switch::run() {
  log::info("switch {}: {} poller(s), {} queue pair(s) a port, mtu {}, uplink {}", options_.name,
            pollers_.size(), options_.queuePairs, options_.mtu, describe(options_.uplink));
  loop_.run();
}

// Frames taken from one pod reach the other before a port is closed.
void Switch::stop() {
  if (std::exchange(stopping_, true)) return;
  signalWatch_.reset();
  holding_.cancel();
  ports_->hold(true);
  epoch_.afterPass([this] { loop_.stop(); });
}

void Switch::release(std::string_view reason) {
  holding_.cancel();
  ports_->hold(false);
  log::info("forwarding enabled ({})", reason);
}

std::string Switch::addPort(const control::Port& port) {
  if (port.id().empty() || port.id().find('/') != std::string::npos)
    throw std::runtime_error(fmt::format("port id '{}': expected a device ID", port.id()));
  return ports_->add(port.id(), portFromControl(port, options_.mtu), policyFromControl(port),
                     closureOf(port));
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
  vswitch.set_uplink(options_.uplink.netdev);
  vswitch.set_uplink_xdp(options_.uplink.xdp);
  vswitch.set_uplink_pci(options_.uplink.pci);
  for (const unsigned core : options_.cores) vswitch.add_cores(core);
  for (const auto& id : ports_->ids()) vswitch.add_ports(id);
  return hello;
}

control::Capturing Switch::capture(const control::Capture& capture, Descriptors& descriptors) {
  UniqueFd memory = descriptors.take(capture.memory());
  UniqueFd pipe = descriptors.take(capture.pipe());
  ports_->capture(capture.port(), capture.snap_length(), std::move(memory), std::move(pipe));
  control::Capturing capturing;
  for (const char* reason : kDropNames) capturing.add_drop_reasons(reason);
  return capturing;
}

control::Answer Switch::answer(const control::Request& request, Descriptors& descriptors) {
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
      ports_->set(request.set_port().id(), portFromControl(request.set_port(), options_.mtu),
                  policyFromControl(request.set_port()));
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
      holding_.start(std::chrono::milliseconds(
          checkedNumber("ms", request.hold().milliseconds(), 0, kMaxHold.count())));
      ports_->hold(true);
      break;
    case Request::kGo:
      if (holding_.pending()) release("requested");
      break;
    case Request::kCapture:
      *answer.mutable_capturing() = capture(request.capture(), descriptors);
      break;
    case Request::kStop:
      stop();
      break;
    case Request::OPERATION_NOT_SET:
      break;  // ControlServer has answered
  }
  return answer;
}

}  // namespace vdpa::vswitch
