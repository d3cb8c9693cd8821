// The worker of one attached device.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <tuple>

#include "common/mac_address.h"
#include "common/mutex.h"
#include "common/paths.h"
#include "deviceplugin/datapath/model/programs.h"
#include "deviceplugin/datapath/model/worker_state.h"
#include "deviceplugin/datapath/processes/supervised_process.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {

// What moves the packets: a private vhost-user socket, of vdpa-pmd or of a port of vdpa-switch,
// or a character device of the kernel's.
struct EngineAddress {
  std::string flag;
  std::string path;
  static EngineAddress vhostUser(std::string socket) { return {"--engine", std::move(socket)}; }
  static EngineAddress switchPort(std::string socket) {
    return {"--switch-port", std::move(socket)};
  }
  static EngineAddress vhostVdpa(std::string node) { return {"--vhost-vdpa", std::move(node)}; }
};

class WorkerHandle {
 public:
  // What the engine reports of the device; absent and 0 where it doesn't.
  struct Facts {
    std::optional<MacAddress> mac;
    unsigned mtu = 0;
    unsigned queuePairs = 0;
  };

  enum class Begin {
    start,     // none runs for this device
    takeOver,  // adopt the one that runs, or start one
  };

  // `onChange` is called on the event thread when state() may have changed.
  WorkerHandle(EventThread& thread, const Programs& programs, const Paths& paths,
               const OwnerRecord& record, const EngineAddress& engine, Begin begin,
               std::function<void()> onChange);

  // Waits until the pod's socket is there. Throws RefusedError (aborted) with the reason if it
  // isn't at the deadline, with `once` std::runtime_error as soon as the worker has died.
  void waitReady(std::chrono::steady_clock::time_point deadline, bool once);
  void stop() { process_.stop(); }
  SupervisedProcess::Status status() const { return process_.status(); }
  WorkerState state() const;
  // The same; waits briefly for a worker that is being started or adopted.
  WorkerState settledState() const;
  Facts facts() const;
  // Bytes of its pod's memory that are not allocated (see MemoryTable). 0 if it doesn't report
  // them: it is of 0.1.0, no pod is connected, or it doesn't answer in time.
  Task<uint64_t> unallocated(std::chrono::milliseconds timeout);

 private:
  void take(const control::WorkerStatus& status);
  void apply(const control::WorkerStatus& status) REQUIRES(mutex_);
  std::tuple<bool, bool, std::string> health() const REQUIRES(mutex_);

  const std::string deviceId_;
  const std::function<void()> onChange_;
  mutable Mutex mutex_;
  Condition changed_;
  bool ready_ GUARDED_BY(mutex_) = false;
  WorkerState::Phase front_ GUARDED_BY(mutex_) = WorkerState::Phase::waiting;
  bool engineDown_ GUARDED_BY(mutex_) = false;  // as it says
  std::string reason_ GUARDED_BY(mutex_);
  Facts facts_ GUARDED_BY(mutex_);
  SupervisedProcess process_;  // last: its threads use the rest
};

}  // namespace vdpa::datapath
