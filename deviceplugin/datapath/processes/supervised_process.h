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
#include "common/mutex.h"
#include "common/task.h"
#include "control.pb.h"
#include "deviceplugin/datapath/processes/process.h"

namespace vdpa::datapath {

// The process is gone or silent: it may or may not have carried out the request.
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
    // Between two heartbeats; after two in a row without an answer the process is killed. 0: no
    // heartbeats.
    std::chrono::seconds heartbeat{0};
    std::chrono::milliseconds stopTime = std::chrono::seconds(3);  // until force, and after it
    bool mayRun = true;       // one may run already; false: the caller knows that none does
    std::string serves = {};  // the pod, for the message about a lack of memory
  };
  // All are called on the event thread, and must neither block nor destroy the process.
  struct Handlers {
    // The process has answered. If this throws, the process is killed and started again.
    std::function<Task<void>(SupervisedProcess& process, control::HelloAnswer hello)> onUp;
    // Each event newer than `hello`, in order, after onUp has finished.
    std::function<void(const control::Event& event)> onEvent;
    std::function<void()> onChange;  // status() has changed
    // Process `pid` has ended unexpectedly; `outOfMemory`: the kernel killed it for lack of
    // memory. Returns true if the cause is dealt with: the next start then waits no longer than
    // the first.
    std::function<bool(pid_t pid, bool outOfMemory)> onEnd = {};
    // The process answers again after a silence. It may have carried out requests that were given
    // up meanwhile.
    std::function<Task<void>(SupervisedProcess& process)> onRecovered = {};
  };
  struct Status {
    bool up = false;
    pid_t pid = 0;        // while it runs
    std::string reason;   // why it isn't up
    unsigned deaths = 0;  // unexpected ends since supervision began
    bool found = false;   // it was adopted
    std::string version;  // as reported; empty before its first answer
  };

  // The thread outlives it.
  SupervisedProcess(EventThread& thread, Plan plan, Handlers handlers);
  // Ends the supervision; the process runs on unless stop() was called. From any thread.
  ~SupervisedProcess();
  SupervisedProcess(const SupervisedProcess&) = delete;
  SupervisedProcess& operator=(const SupervisedProcess&) = delete;

  Status status() const;  // from any thread

  // --- from any thread but the event thread, for which they would wait

  // Ends the process, by force if it doesn't answer. Returns when it has gone. Throws
  // std::runtime_error if it doesn't end because it hangs in the kernel; call it again then.
  void stop();
  // False when it isn't up at the deadline, or, with `once`, as soon as it has died.
  bool waitUp(std::chrono::steady_clock::time_point deadline, bool once = false) const;
  // Its status; waits briefly for a process that is being started or adopted.
  Status settled() const;
  // See ask().
  control::Answer call(control::Request request,
                       std::chrono::milliseconds timeout = std::chrono::seconds(5));

  // --- on the event thread

  // See ControlClient::call. Throws NoAnswer, at once while an earlier request is without an answer
  // for longer than its time; std::runtime_error with what the process answers.
  Task<control::Answer> ask(control::Request request,
                            std::chrono::milliseconds timeout = std::chrono::seconds(5));
  // Says that a request has gone unanswered and what happens next; empty if the process answers.
  std::string silence() const;

 private:
  enum class Wanted { running, stopped };

  Task<void> run();
  Task<bool> bringUp();
  Task<bool> findRunning();
  Task<void> start();
  void leaveContainer(const Process& process) const;
  Task<bool> greet(ControlClient::Peer peer);
  void onEvent(const control::Event& event);
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
  Notification news_;  // of anything that watch() waits for
  std::shared_ptr<ControlClient> client_;
  std::optional<Process> process_;
  bool greeted_ = false;               // onUp has finished
  std::vector<control::Event> early_;  // events before that
  bool closed_ = false;                // the control connection ended
  // Starts the process: to execute a program waits for its disk, and the loop must not.
  std::thread starter_;
  bool starting_ = false;     // it has not handed over the process yet
  std::string startProblem_;  // why it has none
  // Since when a request has gone unanswered; none: the process answers.
  std::optional<std::chrono::steady_clock::time_point> silentSince_;
  bool mayRun_;               // at the next start
  pid_t last_ = 0;            // the process of the last attempt
  uint64_t kills_ = 0;        // OwnMemory's, when the process was seen alive
  bool outOfMemory_ = false;  // how the last one ended
  Job job_;
};

// Ends a process that no attachment uses, found by its control socket or the lock beside it, and
// removes both. Returns false if there was none. Throws if it doesn't end, or if it can't be
// determined whether there is one.
bool stopStray(const std::string& control);

}  // namespace vdpa::datapath
