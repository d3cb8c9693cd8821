// A process that is kept running: found by its control socket and adopted, or started; started
// again with back-off when it dies; and left running when we go. It costs no thread: all
// supervision is on one event thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "common/control_channel.h"
#include "common/event_thread.h"
#include "common/json.h"
#include "common/mutex.h"
#include "common/task.h"
#include "deviceplugin/datapath/processes/process.h"

namespace vdpa::datapath {

// A process that is not there, or is silent: it may have done what it was asked for, or may not.
class NoAnswer : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class SupervisedProcess {
 public:
  struct Plan {
    std::string title;  // for messages: "vdpa-worker of nic-0"
    std::vector<std::string> arguments;
    std::string control;          // path of its control socket
    std::string cgroupRoot = {};  // see moveToOwnCgroup; if empty, it stays in our cgroup
    // Between two questions for a sign of life: two in a row without an answer, and it is killed.
    // 0: none are asked.
    std::chrono::seconds heartbeat{0};
    std::chrono::milliseconds stopTime = std::chrono::seconds(3);  // until force, and after it
    bool mayRun = true;       // or none does, as whoever starts it has seen
    std::string serves = {};  // a pod, for a message that asks whose memory it has
  };
  // All are called on the event thread, and must neither block nor destroy the process.
  struct Handlers {
    // The process answers; what this throws makes it be killed and started again.
    std::function<Task<void>(SupervisedProcess& process, nlohmann::json hello)> onUp;
    // Each event that is newer than `hello`, in their order, once onUp is through.
    std::function<void(const nlohmann::json& event)> onEvent;
    std::function<void()> onChange;  // status() is another one
    // Process `pid` has ended unasked; `outOfMemory`: the kernel ended it for lack of memory.
    // True: its cause is dealt with, and the next start does not wait longer than the first does.
    std::function<bool(pid_t pid, bool outOfMemory)> onEnd = {};
    // It answers again after a silence, in which requests were given up that it may have followed.
    std::function<Task<void>(SupervisedProcess& process)> onRecovered = {};
  };
  struct Status {
    bool up = false;
    pid_t pid = 0;        // while it runs
    std::string reason;   // why it isn't up
    unsigned deaths = 0;  // unasked ends since we watch it
    bool found = false;   // it ran before we watched it
    std::string version;  // as it says; empty: before its first answer, or it doesn't
  };

  // The thread outlives it.
  SupervisedProcess(EventThread& thread, Plan plan, Handlers handlers);
  // Ends the watching; the process runs on unless stop() was called. From any thread.
  ~SupervisedProcess();
  SupervisedProcess(const SupervisedProcess&) = delete;
  SupervisedProcess& operator=(const SupervisedProcess&) = delete;

  Status status() const;  // from any thread

  // --- from any thread but the event thread, for which they would wait

  // Ends the process, by force if it doesn't answer. Returns when it has gone. Throws
  // std::runtime_error if it doesn't go, since it hangs in the kernel; to be called again then.
  void stop();
  // False when it isn't up at the deadline, or, with `once`, as soon as it has died.
  bool waitUp(std::chrono::steady_clock::time_point deadline, bool once = false) const;
  // Its status, for which one that is being started or adopted gets a moment.
  Status settled() const;
  // See ask().
  nlohmann::json call(const std::string& op,
                      const nlohmann::json& arguments = nlohmann::json::object(),
                      std::chrono::milliseconds timeout = std::chrono::seconds(5));

  // --- on the event thread

  // See ControlClient::call. Throws NoAnswer, at once while an earlier request is without an answer
  // for longer than its time; std::runtime_error with what the process answers.
  Task<nlohmann::json> ask(std::string op, nlohmann::json arguments = nlohmann::json::object(),
                           std::chrono::milliseconds timeout = std::chrono::seconds(5));
  // That it has left a request without an answer, and what becomes of it; empty: it answers.
  std::string silence() const;

 private:
  enum class Wanted { running, stopped };

  Task<void> run();
  Task<bool> bringUp();
  Task<bool> findRunning();
  Task<void> start();
  void leaveContainer(const Process& process) const;
  Task<bool> greet();
  void onEvent(const nlohmann::json& event);
  Task<void> watch();
  Task<bool> answers();
  Task<bool> recover();
  Task<bool> ended(Process& process, std::chrono::milliseconds timeout);
  Task<bool> end(Process& process, ControlClient* client);
  Task<void> finish();
  std::string ending();
  void fail(const std::string& reason);
  void setStatus(const std::function<void(Status& status)>& change);

  EventThread& thread_;
  const Plan plan_;
  const Handlers handlers_;
  mutable Mutex mutex_;
  mutable Condition changed_;
  Wanted wanted_ GUARDED_BY(mutex_) = Wanted::running;
  Status status_ GUARDED_BY(mutex_);
  // Once it has been tried: why it could not be stopped, or "".
  std::optional<std::string> stopped_ GUARDED_BY(mutex_);

  // Of the event thread alone, from here on.
  Notification news_;  // of whatever ends a wait
  std::shared_ptr<ControlClient> client_;
  std::optional<Process> process_;
  bool greeted_ = false;               // onUp is through
  std::vector<nlohmann::json> early_;  // events before that
  bool closed_ = false;                // the control connection ended
  // Starts the process: to execute a program waits for its disk, and the loop must not.
  std::thread starter_;
  bool starting_ = false;  // it has not handed over the process yet
  // Since when it has left a request without an answer; none: it answers.
  std::optional<std::chrono::steady_clock::time_point> silentSince_;
  bool mayRun_;               // at the next start
  pid_t last_ = 0;            // the process of the last attempt
  uint64_t kills_ = 0;        // OwnMemory's, when the process was seen alive
  bool outOfMemory_ = false;  // how the last one ended
  Job job_;
};

// Ends a process that nobody needs, found by its control socket or the lock beside that, and
// removes both. False if there was none. Throws if it doesn't end or can't be told.
bool stopStray(const std::string& control);

}  // namespace vdpa::datapath
