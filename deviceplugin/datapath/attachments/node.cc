#include "deviceplugin/datapath/attachments/node.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "common/backend.h"
#include "common/task.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/processes/worker_handle.h"

namespace vdpa::datapath {
namespace {

Task<uint64_t> unallocatedOf(std::shared_ptr<WorkerHandle> worker,
                             std::chrono::milliseconds timeout) {
  if (!worker) co_return 0;
  const uint64_t bytes = co_await worker->unallocated(timeout);
  co_return bytes;
}

}  // namespace

Node::Node(Options given, std::function<void()> healthChanged)
    : options(std::move(given)),
      onHealth(std::move(healthChanged)),
      records(options.paths.owners()),
      orphans(options.releaseAfter),
      switches(supervision, options.programs, options.paths,
               {.unknown =
                    [this](const std::string& id) {
                      const auto device = table.find(id);
                      return device && device->withheld();
                    },
                .name =
                    [this](const std::string& id) {
                      const auto device = table.find(id);
                      return device && device->record
                                 ? describeOwner(device->record->attachment.owner)
                                 : std::string("an unknown owner");
                    },
                .unallocated =
                    [this](const std::string& id, std::chrono::milliseconds timeout) {
                      const auto device = table.find(id);
                      return unallocatedOf(device ? device->worker : nullptr, timeout);
                    }},
               onHealth),
      bus(options.programs.sysfs, options.programs.dev),
      provisioner(
          {options.programs.sysfs, options.paths.provisioned(), options.bootId, options.vdpa.add,
           options.vdpa.remove, options.hardware ? options.hardware->vdpaMtu : options.vdpa.mtu,
           [this](const std::string& id) { return table.inUse(id); }, onHealth},
          bus),
      backends(supervision, switches, bus, provisioner, options.programs, options.paths, onHealth),
      changes(options.hardware ? *options.hardware
                               : VfConfiguration::kernels(options.programs.sysfs, options.vdpa.mac,
                                                          options.vdpa.setMac, options.vdpa.mtu)) {}

Node::~Node() = default;

LiveAttachment Node::describe(const OwnerRecord& record,
                              const std::shared_ptr<WorkerHandle>& worker) const {
  LiveAttachment live{
      record.attachment, nameOf(record.device.backend), "direct", "", "", 0, "", ""};
  if (record.device.attach != Attach::vhostUser) live.vdpa = record.device.vdpa;
  if (record.device.attach == Attach::virtioVdpa) live.virtio = bus.virtioDevice(live.vdpa);
  if (worker) {
    live.state = worker->state().text();
    // A closed port has no socket: to its worker, the engine is down.
    if (const auto vswitch = switches.find(record.attachment.resource);
        vswitch && record.device.backend == BackendKind::software) {
      std::string problem = vswitch->portProblem(record.attachment.deviceId);
      if (problem.empty()) problem = vswitch->offence(record.attachment.deviceId);
      if (!problem.empty()) live.state = WorkerState{WorkerState::Phase::failed, problem}.text();
    }
    const auto status = worker->status();
    live.workerDeaths = status.deaths;
    live.workerVersion = status.version;
  }
  return live;
}

void Node::step(std::string_view name) const {
  if (options.onStep) options.onStep(name);
}

}  // namespace vdpa::datapath
