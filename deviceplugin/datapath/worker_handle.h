// The worker of one attached device.
#pragma once

#include <mutex>
#include <string>

#include "deviceplugin/datapath/owner_record.h"
#include "deviceplugin/datapath/paths.h"
#include "deviceplugin/datapath/programs.h"
#include "deviceplugin/datapath/supervised_process.h"

namespace vdpa {

class WorkerHandle {
 public:
  // Takes over the worker that runs for this device, or starts one. `engine` is the switch port's
  // private socket.
  WorkerHandle(const Programs& programs, const Paths& paths, const OwnerRecord& record,
               const std::string& engine);

  // Waits until the pod's socket is there. Throws RefusedError (aborted) with the reason if it
  // isn't at the deadline, std::runtime_error if the worker died first.
  void waitReady(std::chrono::steady_clock::time_point deadline);
  void stop() { process_.stop(); }
  SupervisedProcess::Status status() const { return process_.status(); }
  // "waiting", "connected", "running" or "failed: <reason>".
  std::string state() const;

 private:
  void ask(SupervisedProcess& process);
  void take(const nlohmann::json& event);
  void apply(const nlohmann::json& state);  // mutex_ is held

  const std::string deviceId_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  unsigned events_ = 0;  // that came so far
  bool ready_ = false;
  std::string front_;
  std::string engine_;
  std::string reason_;
  SupervisedProcess process_;  // last: its threads use the rest
};

}  // namespace vdpa
