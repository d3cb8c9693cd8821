#include "deviceplugin/datapath/processes/supervised_process.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "common/control_channel.h"
#include "common/control_lock.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/unique_fd.h"
#include "common/unix_socket.h"
#include "deviceplugin/datapath/processes/cgroup.h"
#include "deviceplugin/datapath/processes/process.h"

namespace vdpa::datapath {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kFirstPause = 50ms;
constexpr auto kMaxPause = 10s;
constexpr auto kStable = 10s;          // after so long a life the next pause is the first again
constexpr auto kStartTime = 15s;       // from its start to its control socket
constexpr auto kPoll = 400us;          // for the control socket
constexpr auto kSettling = 3s;         // two of them within the CNI plugin's 10 s for a CHECK
constexpr auto kAnswerTime = 5s;       // to a question for a sign of life
constexpr auto kMaxMissedAnswers = 2;  // answers in a row

// False: it hangs in the kernel, where no signal reaches it.
bool endProcess(ControlClient* client, Process& process, std::chrono::milliseconds stopTime) {
  if (client) {
    try {
      client->call("stop", nlohmann::json::object(), stopTime);
    } catch (const std::exception&) {
      // It has gone, or doesn't answer: the wait below tells.
    }
    if (process.waitEnd(stopTime)) return true;
    log::warn("process {} did not stop within {} ms: killed", process.pid(), stopTime.count());
  }
  process.kill();
  return process.waitEnd(stopTime);
}

std::string hanging(const Process& process) {
  return fmt::format(
      "process {} does not end, though it was killed: it hangs in the kernel; dmesg may say where",
      process.pid());
}

// The process that a control socket belongs to, even if it doesn't listen yet or doesn't answer.
// Throws what keeps us from telling.
std::optional<Process> findRunning(const std::string& control) {
  try {
    if (const pid_t pid = lockHolder(control)) return Process::adopt(pid);
    const UniqueFd socket = connectUnix(control);  // one of a version without the lock
    ucred peer{};
    socklen_t size = sizeof peer;
    checked(::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size),
            "cannot tell who listens on {}", control);
    return Process::adopt(peer.pid);
  } catch (const std::system_error& error) {
    const int code = error.code().value();
    if (code != ENOENT && code != ECONNREFUSED && code != ESRCH) throw;
    log::debug("{}", error.what());  // nobody, the ordinary case
    return std::nullopt;
  }
}

}  // namespace

SupervisedProcess::SupervisedProcess(Plan plan, Handlers handlers)
    : plan_(std::move(plan)), handlers_(std::move(handlers)), mayRun_(plan_.mayRun) {
  status_.reason = plan_.title + " is being started";
  thread_ = std::thread([this] { run(); });
}

SupervisedProcess::~SupervisedProcess() {
  {
    std::lock_guard lock(mutex_);
    if (wanted_ == Wanted::running) wanted_ = Wanted::left;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void SupervisedProcess::stop() {
  {
    std::lock_guard lock(mutex_);
    wanted_ = Wanted::stopped;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  const auto client = [this] {
    std::lock_guard lock(mutex_);
    return std::exchange(client_, nullptr);
  }();
  if (process_) {
    if (!endProcess(client.get(), *process_, plan_.stopTime))
      throw std::runtime_error(fmt::format("{}: {}", plan_.title, hanging(*process_)));
    process_.reset();
    log::info("stopped {}", plan_.title);
  }
  stopStray(plan_.control);  // the one that ours found there before itself
}

SupervisedProcess::Status SupervisedProcess::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

bool SupervisedProcess::waitUp(Clock::time_point deadline, bool once) const {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline, [&] {
    return status_.up || wanted_ != Wanted::running || (once && status_.deaths > 0);
  });
  return status_.up;
}

SupervisedProcess::Status SupervisedProcess::settled() const {
  waitUp(Clock::now() + kSettling, true);
  return status();
}

nlohmann::json SupervisedProcess::call(const std::string& op) {
  return call(op, nlohmann::json::object());
}

nlohmann::json SupervisedProcess::call(const std::string& op, const nlohmann::json& arguments,
                                       std::chrono::milliseconds timeout) {
  std::shared_ptr<ControlClient> client;
  {
    std::lock_guard lock(mutex_);
    client = client_;
    if (!client) throw systemError(ENOTCONN, "{}", status_.reason);
  }
  return client->call(op, arguments, timeout);
}

void SupervisedProcess::run() {
  auto nextPause = std::chrono::milliseconds(kFirstPause);
  for (;;) {
    const auto begin = Clock::now();
    last_ = 0;
    outOfMemory_ = false;
    if (bringUp()) watch();
    if (!wanted()) break;
    const bool settled = last_ != 0 && handlers_.onEnd && handlers_.onEnd(last_, outOfMemory_);
    if (settled || Clock::now() - begin > kStable) nextPause = kFirstPause;
    {
      std::lock_guard lock(mutex_);
      status_.reason += fmt::format(", next start in {} ms", nextPause.count());
      log::warn("{}", status_.reason);
    }
    if (handlers_.onChange) handlers_.onChange();
    if (!pause(nextPause)) break;
    if (!settled) nextPause = std::min<std::chrono::milliseconds>(nextPause * 2, kMaxPause);
  }
  end();
}

// The one that runs already, or a new one. True when watch() is to follow.
bool SupervisedProcess::bringUp() {
  try {
    if (process_ && !endProcess(nullptr, *process_, plan_.stopTime))
      throw std::runtime_error(hanging(*process_));
    process_.reset();
    auto running = std::exchange(mayRun_, true) ? findRunning(plan_.control) : std::nullopt;
    const bool found = running.has_value();
    if (!found && !wanted()) return false;
    Process process = found ? std::move(*running)
                            : Process::start(plan_.arguments, lockForStart(plan_.control).get());
    const pid_t pid = process.pid();
    kills_ = ownMemoryKills(plan_.cgroupRoot);
    if (!found) log::info("started {}, process {}", plan_.title, pid);
    leaveContainer(process);
    {
      std::lock_guard lock(mutex_);
      status_.found = found;
    }
    if (!connect(std::move(process))) return false;
    if (found) log::info("took over {}, process {}", plan_.title, pid);
    return true;
  } catch (const std::exception& error) {
    fail(error.what());
    return false;
  }
}

// Not reaching it isn't fatal: the process works, for as long as our container lives.
void SupervisedProcess::leaveContainer(const Process& process) {
  if (plan_.cgroupRoot.empty()) return;
  try {
    moveToOwnCgroup(plan_.cgroupRoot, process.pid());
  } catch (const std::exception& error) {
    log::warn("{} will end with this container: {}", plan_.title, error.what());
  }
}

// Waits for the process's control socket, says hello, and lets the owner prepare it.
bool SupervisedProcess::connect(Process process) {
  process_.emplace(std::move(process));
  {
    std::lock_guard lock(mutex_);
    last_ = status_.pid = process_->pid();
    closed_ = false;
  }
  std::string problem;
  for (const auto deadline = Clock::now() + kStartTime; wanted() && Clock::now() < deadline;) {
    if (process_->waitEnd(kPoll)) break;
    try {
      auto client = std::make_shared<ControlClient>(plan_.control, handlers_.onEvent, [this] {
        std::lock_guard lock(mutex_);
        closed_ = true;
        changed_.notify_all();
      });
      const auto hello = client->call("hello");
      if (const auto pid = hello.value("pid", process_->pid()); pid != process_->pid())
        throw std::runtime_error(fmt::format("process {} came first", pid));
      {
        std::lock_guard lock(mutex_);
        client_ = std::move(client);
        status_.version = hello.value("version", "");
      }
      if (handlers_.onUp) handlers_.onUp(*this, hello);
      {
        std::lock_guard lock(mutex_);
        status_.up = true;
        status_.reason.clear();
      }
      changed_.notify_all();
      if (handlers_.onChange) handlers_.onChange();
      return true;
    } catch (const std::system_error& error) {
      const int code = error.code().value();
      problem = error.what();
      if (client_ || (code != ENOENT && code != ECONNREFUSED)) break;
    } catch (const std::exception& error) {
      problem = error.what();
      break;
    }
  }
  if (!wanted()) return true;  // watch() ends it
  // One that is ending says why in its last words: it gets the time for them.
  const bool ended = process_->waitEnd(1s);
  if (!ended && !endProcess(nullptr, *process_, plan_.stopTime)) problem = hanging(*process_);
  fail(ended ? ending() + "; its last words are in the log" : problem);
  return false;
}

void SupervisedProcess::watch() {
  for (int missed = 0; !waitForEnd();) {
    const uint64_t before = ownMemoryKills(plan_.cgroupRoot);
    const bool alive = answers();
    if (alive) kills_ = before;
    missed = alive ? 0 : missed + 1;
    if (missed < kMaxMissedAnswers) continue;
    log::warn("{} hangs: no answer for {} s, killed", plan_.title,
              (missed * (plan_.heartbeat + kAnswerTime)).count());
    break;
  }
  if (!wanted()) return;
  // Nothing answers any more: if it hasn't ended by itself, it is of no use.
  const bool ended = process_->waitEnd(1s) || endProcess(nullptr, *process_, plan_.stopTime);
  fail(ended ? ending() : hanging(*process_));
}

// How the process ended, in words. The kernel counts its kills before it sends the signal.
std::string SupervisedProcess::ending() {
  const auto memory = ownMemory(plan_.cgroupRoot);
  outOfMemory_ = memory && memory->kills > kills_ && process_->killed();
  if (!outOfMemory_) return process_->ending();
  return fmt::format(
      "{}, for lack of memory: workers and switches have {} of at most {} MiB together{}",
      process_->ending(), memory->used >> 20, memory->limit >> 20,
      plan_.serves.empty() ? "" : ", and this one serves " + plan_.serves);
}

// True when the connection has closed or the process isn't wanted; false when it is time for a sign
// of life.
bool SupervisedProcess::waitForEnd() {
  std::unique_lock lock(mutex_);
  const auto ended = [&] { return closed_ || wanted_ != Wanted::running; };
  if (plan_.heartbeat > 0s) return changed_.wait_for(lock, plan_.heartbeat, ended);
  changed_.wait(lock, ended);
  return true;
}

bool SupervisedProcess::answers() {
  const auto client = [this] {
    std::lock_guard lock(mutex_);
    return client_;
  }();
  try {
    client->call("hello", nlohmann::json::object(), kAnswerTime);
    return true;
  } catch (const std::exception& error) {
    log::debug("{}: {}", plan_.title, error.what());
    return false;
  }
}

// The end of the watching, as asked for.
void SupervisedProcess::end() {
  {
    std::lock_guard lock(mutex_);
    status_.up = false;
    status_.reason = plan_.title + " is stopped";
  }
  changed_.notify_all();
}

void SupervisedProcess::fail(const std::string& reason) {
  std::shared_ptr<ControlClient> gone;  // its destructor joins a thread that takes our lock
  {
    std::lock_guard lock(mutex_);
    gone = std::move(client_);
    client_.reset();
    status_.up = false;
    status_.pid = 0;
    status_.found = false;
    ++status_.deaths;
    status_.reason = fmt::format("{} is not running: {}", plan_.title, reason);
  }
  if (process_ && process_->waitEnd(0s)) process_.reset();
  changed_.notify_all();
}

bool SupervisedProcess::wanted() const {
  std::lock_guard lock(mutex_);
  return wanted_ == Wanted::running;
}

// False when the process isn't wanted any more.
bool SupervisedProcess::pause(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, time, [&] { return wanted_ != Wanted::running; });
}

bool stopStray(const std::string& control) {
  auto process = findRunning(control);
  if (process) {
    log::warn("process {} on {} serves nobody: stopped", process->pid(), control);
    std::unique_ptr<ControlClient> client;
    try {
      client = std::make_unique<ControlClient>(control, nullptr, nullptr);
    } catch (const std::exception&) {
      // Then by force.
    }
    if (!endProcess(client.get(), *process, SupervisedProcess::Plan().stopTime))
      throw std::runtime_error(fmt::format("{}: {}", control, hanging(*process)));
  }
  ::unlink(control.c_str());
  removeLock(control);
  return process.has_value();
}

}  // namespace vdpa::datapath
