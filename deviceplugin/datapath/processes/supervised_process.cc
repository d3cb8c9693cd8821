#include "deviceplugin/datapath/processes/supervised_process.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "common/control_channel.h"
#include "common/control_lock.h"
#include "common/errors.h"
#include "common/event_loop.h"
#include "common/event_thread.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/task.h"
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
constexpr auto kStable = 10s;        // after so long a life the next pause is the first again
constexpr auto kStartTime = 15s;     // from its start to its first answer
constexpr auto kSettling = 3s;       // two of them within the CNI plugin's 10 s for a CHECK
constexpr auto kAnswerTime = 5s;     // to a question; one that gets none meanwhile is silent
constexpr unsigned kMaxSilence = 2;  // heartbeats without an answer
constexpr int kFirstInherited = 3;   // see Process::start

std::string hanging(const Process& process) {
  return fmt::format(
      "process {} does not end, though it was killed: it hangs in the kernel; dmesg may say where",
      process.pid());
}

std::optional<Process> adopt(pid_t pid) {
  try {
    return Process::adopt(pid);
  } catch (const std::system_error& error) {
    if (error.code().value() != ESRCH) throw;
    return std::nullopt;
  }
}

// Call this in the exception's handler.
void throwUnlessNobodyListens(const std::system_error& error) {
  const int code = error.code().value();
  if (code != ENOENT && code != ECONNREFUSED && code != ECONNRESET && code != EPIPE) throw;
  log::debug("{}", error.what());  // the ordinary case
}

// The process that has answered on `control`. Before, the listener may have been its parent, which
// hands down the socket.
pid_t answering(const std::string& control) {
  const pid_t pid = listenerOf(control);
  if (pid == 0)
    throw std::runtime_error(fmt::format(
        "{}: the process that listens there is in a PID namespace invisible from here: end it",
        control));
  return pid;
}

// Its socket is known, but not its pid.
std::system_error mute(const std::system_error& error, const std::string& control) {
  return systemError(error.code().value(),
                     "{}: the process that listens there hangs as it starts: end it (`fuser {}`)",
                     error.what(), control);
}

// As findRunning(), without a loop.
std::optional<Process> findStray(const std::string& control) {
  try {
    pid_t pid = lockHolder(control);
    if (pid == 0) {
      askOnce(control, helloRequest(), kStartTime);
      pid = answering(control);
    }
    return adopt(pid);
  } catch (const std::system_error& error) {
    if (error.code().value() == ETIMEDOUT) throw mute(error, control);
    throwUnlessNobodyListens(error);
    return std::nullopt;
  }
}

}  // namespace

SupervisedProcess::SupervisedProcess(EventThread& thread, Plan plan, Handlers handlers)
    : thread_(thread),
      plan_(std::move(plan)),
      handlers_(std::move(handlers)),
      news_(thread.loop()),
      mayRun_(plan_.mayRun) {
  status_.reason = plan_.title + " is being started";
  thread_.run([this] { job_ = Job(run()); });
}

SupervisedProcess::~SupervisedProcess() {
  thread_.run([this] {
    job_.cancel();
    client_.reset();
  });
  if (!starter_.joinable()) return;
  starter_.join();
  thread_.run([] {});  // after what it posted
}

void SupervisedProcess::stop() {
  {
    Lock lock(mutex_);
    wanted_ = Wanted::stopped;
    stopped_.reset();
  }
  thread_.run([this] {
    job_.cancel();  // whatever it waits for
    job_ = Job(finish());
  });
  std::string problem;
  {
    Lock lock(mutex_);
    while (!stopped_) changed_.wait(mutex_);
    problem = *stopped_;
  }
  if (!problem.empty()) throw std::runtime_error(problem);
  stopStray(plan_.control);  // the one that ours found there before itself
}

SupervisedProcess::Status SupervisedProcess::status() const {
  Lock lock(mutex_);
  return status_;
}

void SupervisedProcess::setStatus(const std::function<void(Status& status)>& change) {
  {
    Lock lock(mutex_);
    change(status_);
  }
  changed_.notifyAll();
}

bool SupervisedProcess::waitUp(Clock::time_point deadline, bool once) const {
  Lock lock(mutex_);
  while (!status_.up && wanted_ == Wanted::running && !(once && status_.deaths > 0))
    if (!changed_.waitUntil(mutex_, deadline)) break;
  return status_.up;
}

SupervisedProcess::Status SupervisedProcess::settled() const {
  waitUp(Clock::now() + kSettling, true);
  return status();
}

control::Answer SupervisedProcess::call(control::Request request,
                                        std::chrono::milliseconds timeout) {
  return thread_.wait(ask(std::move(request), timeout));
}

Task<control::Answer> SupervisedProcess::ask(control::Request request,
                                             std::chrono::milliseconds timeout) {
  const auto client = client_;  // it may be replaced meanwhile
  if (!client) throw NoAnswer(status().reason);
  if (silentSince_) throw NoAnswer(silence());
  try {
    auto answer = co_await client->call(std::move(request), timeout);
    co_return answer;
  } catch (const std::system_error& error) {
    // Who waits for less learns nothing of the process: it may be busy.
    if (error.code().value() != ETIMEDOUT || client != client_ || timeout < kAnswerTime)
      throw NoAnswer(error.what());
    if (!silentSince_) silentSince_ = Clock::now() - timeout;
    news_.notify();  // which asks it at once
    throw NoAnswer(silence());
  }
}

std::string SupervisedProcess::silence() const {
  if (!silentSince_) return "";
  return fmt::format(
      "{}, process {}, has not answered for {} s; if it does not within {} s altogether, it is "
      "killed and started again: try again then",
      plan_.title, last_,
      std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - *silentSince_).count(),
      (kMaxSilence * plan_.heartbeat).count());
}

Task<void> SupervisedProcess::run() {
  auto nextPause = std::chrono::milliseconds(kFirstPause);
  for (;;) {
    const auto begin = Clock::now();
    last_ = 0;
    outOfMemory_ = false;
    const bool up = co_await bringUp();
    if (up) co_await watch();
    const bool settled = last_ != 0 && handlers_.onEnd && handlers_.onEnd(last_, outOfMemory_);
    if (settled || Clock::now() - begin > kStable) nextPause = kFirstPause;
    setStatus([&](Status& status) {
      status.reason += fmt::format(", next start in {} ms", nextPause.count());
      log::warn("{}", status.reason);
    });
    if (handlers_.onChange) handlers_.onChange();
    co_await sleepFor(thread_.loop(), nextPause);
    if (!settled) nextPause = std::min<std::chrono::milliseconds>(nextPause * 2, kMaxPause);
  }
}

// The one that runs already, or a new one. True when watch() is to follow.
Task<bool> SupervisedProcess::bringUp() {
  std::string problem;
  try {
    if (process_) {
      const bool gone = co_await end(*process_, nullptr);
      if (!gone) throw std::runtime_error(hanging(*process_));
    }
    process_.reset();
    const bool found = std::exchange(mayRun_, true) && co_await findRunning();
    if (!found) co_await start();
    last_ = process_->pid();
    kills_ = ownMemoryKills(plan_.cgroupRoot);
    setStatus([&](Status& status) {
      status.pid = last_;
      status.found = found;
    });
    if (found) leaveContainer(*process_);
    const bool up =
        co_await greet(found ? ControlClient::Peer::found : ControlClient::Peer::started);
    if (up && found) log::info("adopted {}, process {}", plan_.title, last_);
    co_return up;
  } catch (const std::exception& error) {
    problem = error.what();
  }
  fail(problem);
  co_return false;
}

// Adopts the process that has the control socket; false if there is none. Throws if that can't be
// determined.
Task<bool> SupervisedProcess::findRunning() {
  pid_t pid = lockHolder(plan_.control);
  if (pid == 0) {
    // A process that has just been started listens already, and has its lock once it answers.
    std::unique_ptr<ControlClient> client;
    try {
      client = std::make_unique<ControlClient>(thread_.loop(), plan_.control,
                                               ControlClient::Peer::found, nullptr, nullptr);
    } catch (const std::system_error& error) {
      throwUnlessNobodyListens(error);
      co_return false;
    }
    try {
      co_await client->call(helloRequest(), kStartTime);
    } catch (const std::system_error& error) {
      if (error.code().value() == ETIMEDOUT) throw mute(error, plan_.control);
      throwUnlessNobodyListens(error);
      co_return false;
    }
    pid = answering(plan_.control);
  }
  process_ = adopt(pid);
  co_return process_.has_value();
}

// The process inherits its listening socket, so its start need not be waited for to connect.
Task<void> SupervisedProcess::start() {
  auto arguments = plan_.arguments;
  arguments.push_back(fmt::format("--control-fd={}", kFirstInherited));
  const auto listener = std::make_shared<UniqueFd>(listenUnix(plan_.control, 0600));
  if (starter_.joinable()) starter_.join();  // of the previous start, which is through
  starting_ = true;
  starter_ = std::thread([this, arguments, listener] {
    const auto started = std::make_shared<std::optional<Process>>();
    std::string problem;
    try {
      *started = Process::start(arguments, listener->get());
      leaveContainer(**started);
    } catch (const std::exception& error) {
      problem = error.what();
    }
    thread_.loop().post([this, started, problem] {
      starting_ = false;
      process_ = std::move(*started);
      startProblem_ = problem;
      news_.notify();
    });
  });
  while (starting_) co_await news_.wait();
  if (!process_) throw std::runtime_error(startProblem_);
  log::info("started {}, process {}", plan_.title, process_->pid());
}

// Failure isn't fatal: the process works as long as our container lives.
void SupervisedProcess::leaveContainer(const Process& process) const {
  if (plan_.cgroupRoot.empty()) return;
  try {
    moveToOwnCgroup(plan_.cgroupRoot, process.pid());
  } catch (const std::exception& error) {
    log::warn("{} will end with this container: {}", plan_.title, error.what());
  }
}

// Says hello, and lets the owner prepare it.
Task<bool> SupervisedProcess::greet(ControlClient::Peer peer) {
  std::string problem;
  try {
    closed_ = false;
    silentSince_.reset();
    greeted_ = false;
    early_.clear();
    client_ = std::make_shared<ControlClient>(
        thread_.loop(), plan_.control, peer,
        [this](const control::Event& event) { onEvent(event); },
        [this] {
          closed_ = true;
          news_.notify();
        });
    const auto answer = co_await client_->call(helloRequest(), kStartTime);
    auto hello = answer.hello();
    if (hello.pid() != last_)
      throw std::runtime_error(fmt::format("process {} came first", hello.pid()));
    setStatus([&](Status& status) { status.version = hello.version(); });
    if (handlers_.onUp) co_await handlers_.onUp(*this, std::move(hello));
    greeted_ = true;
    for (const auto& event : early_) onEvent(event);
    early_.clear();
    setStatus([](Status& status) {
      status.up = true;
      status.reason.clear();
    });
    if (handlers_.onChange) handlers_.onChange();
    co_return true;
  } catch (const std::exception& error) {
    problem = error.what();
  }
  // A process that is ending logs the reason: give it time to.
  const bool ended = co_await this->ended(*process_, 1s);
  bool gone = ended;
  if (!gone) gone = co_await end(*process_, nullptr);
  if (!gone) problem = hanging(*process_);
  fail(ended ? ending() + "; its last words are in the log" : problem);
  co_return false;
}

void SupervisedProcess::onEvent(const control::Event& event) {
  if (!client_) return;  // it is being stopped
  if (!handlers_.onEvent || client_->answers() == 0) return;
  if (greeted_)
    handlers_.onEvent(event);
  else
    early_.push_back(event);
}

Task<void> SupervisedProcess::watch() {
  auto next = Clock::now() + plan_.heartbeat;
  for (;;) {
    while (!closed_ && !silentSince_) {
      bool news = true;
      if (plan_.heartbeat > 0s)
        news = co_await news_.waitUntil(next);
      else
        news = co_await news_.wait();
      if (!news) break;
    }
    if (closed_) break;
    const uint64_t before = ownMemoryKills(plan_.cgroupRoot);
    const auto asked = Clock::now();
    const bool alive = co_await answers();
    if (alive) {
      kills_ = before;
      if (std::exchange(silentSince_, std::nullopt)) {
        const bool usable = co_await recover();
        if (!usable) break;
      }
      next = Clock::now() + plan_.heartbeat;
      continue;
    }
    // A heartbeat that fails early, since it could not even be sent, takes its whole time too.
    for (bool early = true; early && !closed_;)
      early = co_await news_.waitUntil(asked + kAnswerTime);
    if (closed_) break;
    if (!silentSince_) silentSince_ = asked;
    const auto silent = Clock::now() - *silentSince_;
    if (silent < kMaxSilence * plan_.heartbeat) continue;
    log::warn("{} hangs: no answer for {} s, killed", plan_.title,
              std::chrono::duration_cast<std::chrono::seconds>(silent).count());
    break;
  }
  // It no longer answers: if it hasn't ended by itself, end it.
  bool gone = closed_;
  if (gone) gone = co_await ended(*process_, 1s);
  if (!gone) gone = co_await end(*process_, nullptr);
  fail(gone ? ending() : hanging(*process_));
}

Task<bool> SupervisedProcess::answers() {
  try {
    co_await client_->call(helloRequest(), kAnswerTime);
    co_return true;
  } catch (const std::exception& error) {
    log::debug("{}: {}", plan_.title, error.what());
  }
  co_return false;
}

// False: what it answers makes no sense.
Task<bool> SupervisedProcess::recover() {
  log::info("{} answers again", plan_.title);
  try {
    if (handlers_.onRecovered) co_await handlers_.onRecovered(*this);
    co_return true;
  } catch (const NoAnswer& error) {  // it has ended or is silent again, which watch() sees
    log::debug("{}: {}", plan_.title, error.what());
    co_return true;
  } catch (const std::exception& error) {
    log::warn("{} can't be used after its silence and is killed: {}", plan_.title, error.what());
  }
  co_return false;
}

Task<bool> SupervisedProcess::ended(Process& process, std::chrono::milliseconds timeout) {
  if (process.waitEnd(0us)) co_return true;
  Notification end(thread_.loop());
  EventLoop::Watch watch;
  watch = EventLoop::Watch(thread_.loop(), process.fd(), EPOLLIN, [&](uint32_t) {
    watch.reset();
    end.notify();
  });
  co_await end.waitFor(timeout);
  co_return process.waitEnd(0us);
}

// Asks it to end, if there is a client and it answers, and then ends it by force. Returns false if
// it hangs in the kernel, where no signal reaches it.
Task<bool> SupervisedProcess::end(Process& process, ControlClient* client) {
  if (client && !silentSince_) {
    const auto deadline = Clock::now() + plan_.stopTime;
    try {
      co_await client->call(stopRequest(), plan_.stopTime);
    } catch (const std::exception&) {
      // It is gone or doesn't answer: the wait below finds out.
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    const bool gone = co_await ended(process, std::max<std::chrono::milliseconds>(left, 0ms));
    if (gone) co_return true;
    log::warn("process {} did not stop within {} ms: killed", process.pid(),
              plan_.stopTime.count());
  }
  process.kill();
  const bool gone = co_await ended(process, plan_.stopTime);
  co_return gone;
}

// Ends the supervision and the process.
Task<void> SupervisedProcess::finish() {
  const auto client = std::exchange(client_, nullptr);
  setStatus([this](Status& status) {
    status.up = false;
    status.reason = plan_.title + " is stopped";
  });
  std::string problem;
  while (starting_) co_await news_.wait();
  if (process_) {
    const bool gone = co_await end(*process_, client.get());
    if (gone) {
      process_.reset();
      log::info("stopped {}", plan_.title);
    } else {
      problem = fmt::format("{}: {}", plan_.title, hanging(*process_));
    }
  }
  {
    Lock lock(mutex_);
    stopped_ = problem;
  }
  changed_.notifyAll();
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

void SupervisedProcess::fail(const std::string& reason) {
  client_.reset();
  silentSince_.reset();
  setStatus([&](Status& status) {
    status.up = false;
    status.pid = 0;
    status.found = false;
    ++status.deaths;
    status.reason = fmt::format("{} is not running: {}", plan_.title, reason);
  });
  if (process_ && process_->waitEnd(0us)) process_.reset();
}

bool stopStray(const std::string& control) {
  auto process = findStray(control);
  if (process) {
    log::warn("stopping process {} (socket {}): no attachment uses it", process->pid(), control);
    const auto time = SupervisedProcess::Plan().stopTime;
    bool gone = false;
    try {
      askOnce(control, stopRequest(), time);
      gone = process->waitEnd(time);
    } catch (const std::exception&) {
      // It is ended by force below.
    }
    if (!gone) {
      process->kill();
      gone = process->waitEnd(time);
    }
    if (!gone) throw std::runtime_error(fmt::format("{}: {}", control, hanging(*process)));
  }
  ::unlink(control.c_str());
  removeLock(control);
  return process.has_value();
}

}  // namespace vdpa::datapath
