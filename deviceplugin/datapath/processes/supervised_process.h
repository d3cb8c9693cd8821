// A process that is kept running: found by its control socket or the lock beside that and taken
// over, or started; started again with back-off when it dies; and left running when we go.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "deviceplugin/datapath/processes/process.h"

namespace vdpa {
class ControlClient;
}

namespace vdpa::datapath {

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
  // All run on threads of the process's own and must not destroy it.
  struct Handlers {
    // The process answers; what this throws makes it be killed and started again.
    std::function<void(SupervisedProcess& process, const nlohmann::json& hello)> onUp;
    std::function<void(const nlohmann::json& event)> onEvent;
    std::function<void()> onChange;  // status() is another one
    // Process `pid` has ended unasked; `outOfMemory`: the kernel ended it for lack of memory.
    // True: its cause is dealt with, and the next start does not wait longer than the first does.
    std::function<bool(pid_t pid, bool outOfMemory)> onEnd = {};
  };
  struct Status {
    bool up = false;
    pid_t pid = 0;        // while it runs
    std::string reason;   // why it isn't up
    unsigned deaths = 0;  // unasked ends since we watch it
    bool found = false;   // it ran before we watched it
    std::string version;  // as it tells; empty: before its first answer, or it doesn't
  };

  SupervisedProcess(Plan plan, Handlers handlers);
  // Ends the watching; the process runs on unless stop() was called.
  ~SupervisedProcess();
  SupervisedProcess(const SupervisedProcess&) = delete;
  SupervisedProcess& operator=(const SupervisedProcess&) = delete;

  // Ends the process, by force if it doesn't answer. Returns when it has gone. Throws
  // std::runtime_error if it doesn't go, since it hangs in the kernel, or can't be told; to be
  // called again then.
  void stop();
  Status status() const;
  // False when it isn't up at the deadline, or, with `once`, as soon as it has died.
  bool waitUp(std::chrono::steady_clock::time_point deadline, bool once = false) const;
  // Its status, for which one that is being started or taken over gets a moment.
  Status settled() const;
  // See ControlClient::call. Throws std::system_error (ENOTCONN) while the process is not there.
  nlohmann::json call(const std::string& op);
  nlohmann::json call(const std::string& op, const nlohmann::json& arguments,
                      std::chrono::milliseconds timeout = std::chrono::seconds(5));

 private:
  enum class Wanted { running, stopped, left };

  void run();
  bool bringUp();
  void leaveContainer(const Process& process);
  bool connect(Process process);
  void watch();
  bool waitForEnd();
  bool answers();
  std::string ending();
  void end();
  void fail(const std::string& reason);
  bool wanted() const;
  bool pause(std::chrono::milliseconds time);

  const Plan plan_;
  const Handlers handlers_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool mayRun_;  // of the thread
  Wanted wanted_ = Wanted::running;
  bool closed_ = false;  // the control connection ended
  Status status_;
  std::shared_ptr<ControlClient> client_;
  pid_t last_ = 0;                  // of the thread: the process of the last attempt
  uint64_t kills_ = 0;              // of the thread: OwnMemory's, when the process was seen alive
  bool outOfMemory_ = false;        // of the thread: how the last one ended
  std::optional<Process> process_;  // of the thread, and when that has ended, of stop()
  std::thread thread_;
};

// Ends a process that nobody needs, found by its control socket or the lock beside that, and
// removes both. False if there was none. Throws if it doesn't end or can't be told.
bool stopStray(const std::string& control);

}  // namespace vdpa::datapath
