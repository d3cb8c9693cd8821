#include "deviceplugin/datapath/processes/worker_handle.h"

#include <fmt/core.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "common/control_channel.h"
#include "common/event_thread.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/paths.h"
#include "common/task.h"
#include "control.pb.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/model/programs.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/model/worker_state.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {
namespace {

// The largest ring that a front-end may set up; what device.json recommends is smaller. Behind the
// switch any that virtio allows (virtio 1.2, 2.7 and 2.8): it works with every size.
constexpr unsigned kMaxQueueSize = 1024, kMaxSwitchQueueSize = 32768;

std::vector<std::string> argumentsOf(const Programs& programs, const Paths& paths,
                                     const OwnerRecord& record, const EngineAddress& engine) {
  const Attachment& attachment = record.attachment;
  const unsigned maxQueueSize =
      engine.flag == "--switch-port" ? kMaxSwitchQueueSize : kMaxQueueSize;
  std::vector<std::string> arguments = {programs.worker,
                                        "--device=" + attachment.deviceId,
                                        "--socket=" + paths.podSocket(attachment.deviceId),
                                        fmt::format("--socket-uid={}", record.socket.uid),
                                        fmt::format("--socket-gid={}", record.socket.gid),
                                        fmt::format("--socket-mode={:o}", record.socket.mode),
                                        engine.flag + "=" + engine.path,
                                        "--control=" + paths.workerControl(attachment.deviceId),
                                        fmt::format("--queue-pairs={}", attachment.queuePairs),
                                        fmt::format("--queue-size={}", maxQueueSize),
                                        "--log-level=" + programs.logLevel,
                                        "--log-format=" + programs.logFormat};
  // Its name may be another device's when the worker is started again.
  if (struct stat node; engine.flag == "--vhost-vdpa" && ::stat(engine.path.c_str(), &node) == 0)
    arguments.push_back(fmt::format("--inode={}", node.st_ino));
  // Without it the worker reports the device's own.
  if (const auto mac = attachment.port.mac) arguments.push_back("--mac=" + mac->text());
  if (const auto mtu = attachment.port.mtu) arguments.push_back(fmt::format("--mtu={}", *mtu));
  if (!record.policy.offloads) arguments.push_back("--offloads=false");
  if (!record.socket.selinuxLabel.empty())
    arguments.push_back("--selinux-label=" + record.socket.selinuxLabel);
  return arguments;
}

WorkerState::Phase phaseOf(control::WorkerStatus::Front front) {
  switch (front) {
    case control::WorkerStatus::CONNECTED:
      return WorkerState::Phase::connected;
    case control::WorkerStatus::RUNNING:
      return WorkerState::Phase::running;
    default:
      return WorkerState::Phase::waiting;
  }
}

// It may be busy for as long while the kernel pins a large pod's memory for its device.
constexpr auto kHeartbeat = std::chrono::seconds(30);

}  // namespace

WorkerHandle::WorkerHandle(EventThread& thread, const Programs& programs, const Paths& paths,
                           const OwnerRecord& record, const EngineAddress& engine, Begin begin,
                           std::function<void()> onChange)
    : deviceId_(record.attachment.deviceId),
      onChange_(std::move(onChange)),
      process_(thread,
               {.title = "vdpa-worker of " + deviceId_,
                .arguments = argumentsOf(programs, paths, record, engine),
                .control = paths.workerControl(deviceId_),
                .cgroupRoot = programs.cgroupRoot,
                .heartbeat = kHeartbeat,
                .mayRun = begin == Begin::takeOver,
                .serves = describeOwner(record.attachment.owner)},
               {[this](SupervisedProcess&, control::HelloAnswer hello) -> Task<void> {
                  Lock lock(mutex_);
                  apply(hello.worker().status());
                  co_return;
                },
                [this](const control::Event& event) {
                  if (event.has_worker()) take(event.worker());
                },
                [this] {
                  {
                    Lock lock(mutex_);  // not between a waiter's check and its sleep
                    changed_.notifyAll();
                  }
                  onChange_();
                }}) {}

void WorkerHandle::take(const control::WorkerStatus& status) {
  const bool healthSame = [&] {
    Lock lock(mutex_);
    const auto before = health();
    apply(status);
    return before == health();
  }();
  changed_.notifyAll();
  if (!healthSame) onChange_();  // which checks all devices
}

// A device's health depends on these; whether a pod is connected does not matter.
std::tuple<bool, bool, std::string> WorkerHandle::health() const {
  return {ready_, engineDown_, engineDown_ ? reason_ : ""};
}

void WorkerHandle::apply(const control::WorkerStatus& status) {
  ready_ = status.ready();
  front_ = phaseOf(status.front());
  engineDown_ = !status.engine_up();
  reason_ = status.reason();
  const auto& limits = status.limits();
  facts_ = {MacAddress::parse(limits.mac()), limits.mtu(), limits.queue_pairs()};
}

WorkerHandle::Facts WorkerHandle::facts() const {
  Lock lock(mutex_);
  return facts_;
}

Task<uint64_t> WorkerHandle::unallocated(std::chrono::milliseconds timeout) {
  try {
    const auto answer = co_await process_.ask(helloRequest(), timeout);
    co_return answer.hello().worker().unallocated();
  } catch (const std::exception& error) {
    log::debug("{}: {}", deviceId_, error.what());
  }
  co_return 0;
}

void WorkerHandle::waitReady(std::chrono::steady_clock::time_point deadline, bool once) {
  if (!process_.waitUp(deadline, once)) {
    const auto status = process_.status();
    if (once && status.deaths > 0) throw std::runtime_error(status.reason);
    throw RefusedError(Refusal::aborted, status.reason);
  }
  Lock lock(mutex_);
  auto status = process_.status();
  while (!ready_ && (status.up || !once)) {
    const bool inTime = changed_.waitUntil(mutex_, deadline);
    status = process_.status();
    if (!inTime) break;
  }
  if (ready_) return;
  if (once && !status.up) throw std::runtime_error(status.reason);
  if (!status.up) throw RefusedError(Refusal::aborted, status.reason);
  throw RefusedError(Refusal::aborted,
                     fmt::format("vdpa-worker of {} did not get ready: {}", deviceId_,
                                 reason_.empty() ? "its engine does not answer" : reason_));
}

WorkerState WorkerHandle::settledState() const {
  process_.settled();
  return state();
}

WorkerState WorkerHandle::state() const {
  const auto status = process_.status();
  if (!status.up) return {WorkerState::Phase::failed, status.reason};
  Lock lock(mutex_);
  if (engineDown_)
    return {WorkerState::Phase::failed,
            fmt::format("the engine of {} is down: {}", deviceId_, reason_)};
  return {front_, ""};
}

}  // namespace vdpa::datapath
