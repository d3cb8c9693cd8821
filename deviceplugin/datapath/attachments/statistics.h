// What devices, processes and the CNI plugin have counted, for metrics.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/cni_calls.h"
#include "deviceplugin/datapath/attachments/node.h"
#include "deviceplugin/datapath/model/device_counters.h"
#include "deviceplugin/datapath/model/queue_events.h"
#include "deviceplugin/datapath/processes/cgroup.h"

namespace vdpa::datapath {

struct Statistics {
  // Of an attached device.
  struct Traffic {
    std::string resource;
    DeviceCounters counters;
  };
  struct Queues {
    std::string resource, device;
    std::vector<QueueEvents> queues;
  };
  struct Engine {
    std::string program, resource;
    std::string device;  // of a vdpa-pmd
    unsigned restarts = 0;
  };
  struct Poller {
    std::string resource;
    unsigned number = 0;
    std::optional<unsigned> core;  // absent: not pinned
    std::chrono::nanoseconds busy{0};
  };
  std::vector<Traffic> traffic;
  std::vector<Queues> queues;
  std::vector<Engine> engines;
  std::vector<Poller> pollers;
  std::vector<CniCallCount> cniCalls;
  std::optional<OwnMemory> memory;
};

// What could not be read the last time, and why: the log has what is new.
using ReadProblems = std::map<std::string, std::string>;

// Takes about `time` at most, and leaves out what cannot be read or would take longer; the log has
// the reason. From any thread, with problems of its own.
Statistics readStatistics(const Node& node, std::chrono::milliseconds time, ReadProblems& problems);

}  // namespace vdpa::datapath
