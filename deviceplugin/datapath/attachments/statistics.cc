#include "deviceplugin/datapath/attachments/statistics.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/backend.h"
#include "common/cni_calls.h"
#include "common/log.h"
#include "deviceplugin/datapath/attachments/device_table.h"
#include "deviceplugin/datapath/attachments/node.h"
#include "deviceplugin/datapath/hardware/function_counters.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/queue_events.h"
#include "deviceplugin/datapath/processes/cgroup.h"
#include "deviceplugin/datapath/processes/switch_handle.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {
namespace {

// One call, so that a process that hangs leaves time for the others.
constexpr std::chrono::milliseconds kCallTime{300};
// With less, a process that is merely busy would be asked in vain.
constexpr std::chrono::milliseconds kLeastCallTime{50};

class Reader {
 public:
  Reader(const Node& node, std::chrono::milliseconds time, ReadProblems& problems)
      : node_(node), deadline_(Clock::now() + time), before_(problems) {
    for (auto& [id, device] : node_.table.all())
      if (device.record) attached_.emplace(id, *std::move(device.record));
  }

  Statistics read() {
    readSwitches();
    readFunctions();
    readQueues();
    attempt("the calls of the CNI plugin",
            [this] { found_.cniCalls = readCniCalls(node_.options.paths.cniCalls()); });
    found_.memory = ownMemory(node_.options.programs.cgroupRoot);
    before_ = std::move(problems_);
    return std::move(found_);
  }

 private:
  using Clock = std::chrono::steady_clock;

  void attempt(const std::string& what, const std::function<void()>& read) {
    std::string problem;
    try {
      read();
    } catch (const std::exception& error) {  // the rest is still of use
      problem = error.what();
    }
    const auto before = before_.find(what);
    if (problem.empty()) {
      if (before != before_.end()) log::info("{} can be read for the metrics again", what);
      return;
    }
    if (before == before_.end() || before->second != problem)
      log::warn("cannot read {} for the metrics: {}", what, problem);
    problems_[what] = std::move(problem);
  }

  // Of the next call. Throws if there is not enough left.
  std::chrono::milliseconds timeLeft() const {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now());
    if (left < kLeastCallTime) throw std::runtime_error("earlier answers took too long");
    return std::min(left, kCallTime);
  }

  void readSwitches() {
    for (const auto& [resource, vswitch] : node_.switches.all()) {
      found_.engines.push_back({"vdpa-switch", resource, "", vswitch->status().deaths});
      if (!vswitch->status().up) continue;
      attempt("the counters of " + resource, [&, &resource = resource, &vswitch = vswitch] {
        auto statistics = vswitch->readStatistics({}, timeLeft());
        for (auto& counters : statistics.ports)
          if (attached_.contains(counters.id))  // not of the uplink
            found_.traffic.push_back({resource, std::move(counters)});
        unsigned number = 0;
        for (const auto& poller : statistics.pollers)
          found_.pollers.push_back({resource, number++, poller.core, poller.busy});
      });
    }
  }

  void readFunctions() {
    std::map<std::string, DeviceConfig> devices;
    for (const auto& [id, record] : attached_)
      if (record.device.backend != BackendKind::software) devices.emplace(id, record.device);
    for (auto& [id, counters] :
         readFunctionCounters(node_.options.programs.sysfs, devices,
                              [this](const std::string&what, const std::function<void()>&read) {
                                attempt(what, [&] {
                                  timeLeft();
                                  read();
                                });
                              }))
      found_.traffic.push_back({attached_.at(id).attachment.resource, std::move(counters)});
  }

  void readQueues() {
    for (const auto& [id, deaths] : node_.backends.dpdk.deathsByDevice())
      if (const auto record = attached_.find(id); record != attached_.end())
        found_.engines.push_back({"vdpa-pmd", record->second.attachment.resource, id, deaths});
    for (const auto& [id, record] : attached_) {
      if (record.device.backend == BackendKind::software) continue;
      attempt("the queues' counters of " + id, [&, &id = id, &record = record] {
        const auto time = timeLeft();
        auto queues = record.device.backend == BackendKind::dpdk
                          ? node_.backends.dpdk.readQueues(id, time)
                          : kernelQueues(record);
        if (!queues.empty())
          found_.queues.push_back({record.attachment.resource, id, std::move(queues)});
      });
    }
  }

  std::vector<QueueEvents> kernelQueues(const OwnerRecord& record) const {
    std::vector<QueueEvents> queues;
    if (!node_.options.vdpa.queueEvents || record.device.vdpa.empty()) return queues;
    for (auto& events :
         node_.options.vdpa.queueEvents(record.device.vdpa, 2 * record.attachment.queuePairs))
      queues.push_back({static_cast<unsigned>(queues.size()), std::move(events)});
    return queues;
  }

  const Node& node_;
  const Clock::time_point deadline_;
  ReadProblems& before_;
  ReadProblems problems_;
  std::map<std::string, OwnerRecord> attached_;  // by device ID
  Statistics found_;
};

}  // namespace

Statistics readStatistics(const Node& node, std::chrono::milliseconds time,
                          ReadProblems& problems) {
  return Reader(node, time, problems).read();
}

}  // namespace vdpa::datapath
