// Attaching and detaching: what happens to a device between two owners, step by step, so that a
// crash at any step leaves an owner record from which the next start goes on.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/pod_resources.h"
#include "deviceplugin/datapath/backings.h"
#include "deviceplugin/datapath/device_state.h"
#include "deviceplugin/datapath/device_table.h"
#include "deviceplugin/datapath/owner_records.h"
#include "deviceplugin/datapath/paths.h"
#include "deviceplugin/datapath/programs.h"
#include "deviceplugin/datapath/switch_set.h"

namespace vdpa {

struct AttachRequest {
  Owner owner;
  std::string deviceId;
  Settings settings;
  std::vector<std::string> ips;
  std::vector<PodRoute> routes;
};

class Attachments {
 public:
  struct Options {
    Programs programs;
    Paths paths;
    std::string bootId;
    // Throws when the kubelet cannot be asked.
    std::function<std::vector<PodDevice>()> listPodDevices;
    // Make and remove a vDPA device. They throw what says why it failed.
    std::function<void(const std::string& name, const std::string& managementDevice)> addVdpa;
    std::function<void(const std::string& name)> removeVdpa;
    // How long an Attach waits for an owner to go or an engine to come.
    std::chrono::milliseconds patience = std::chrono::seconds(4);
    // Called after each step of an Attach or Detach; for tests.
    std::function<void(std::string_view step)> onStep;
  };
  // An attachment and how it does.
  struct Live {
    Attachment attachment;
    std::string backend;
    std::string state;  // as in datapath.proto
    unsigned workerDeaths = 0;
  };

  // Goes on from the owner records: takes over what runs, starts again what doesn't, undoes what
  // was not finished or belongs to another boot. `onHealth` is called from threads of its own when
  // deviceStates() may be another one.
  Attachments(Options options, std::function<void()> onHealth);
  // Leaves all workers and switches running.
  ~Attachments();

  // The five calls of datapath.proto. They throw RefusedError for what is refused, other
  // exceptions for what failed.
  void setDevices(const std::vector<Resource>& resources);
  Live attach(const AttachRequest& request, const std::function<bool()>& cancelled);
  bool detach(const AttachmentKey& key);
  std::vector<std::string> check(const AttachRequest& request);
  // Of the given devices, or of every attached one.
  std::vector<DeviceCounters> counters(const std::vector<std::string>& ids);

  std::vector<DeviceState> deviceStates() const;
  std::vector<Live> list() const;
  unsigned engineDeaths() const;

  // Detaches what nobody will: its network namespace is gone, and the kubelet doesn't list it.
  void releaseAbandoned();
  // Looks again at devices that a worker could not open.
  void retryFailed();
  // Makes every Attach that waits give up. To be called before the destructor.
  void shutdown();

 private:
  using Clock = DeviceTable::Clock;

  void recover();
  void resume(const OwnerRecord& record);
  void undoUnfinished(const OwnerRecord& record);
  DeviceTable::Lease takeDevice(const AttachRequest& request, Clock::time_point deadline);
  bool mayTakeOver(const OwnerRecord& record, const Owner& requester);
  void waitWorker(WorkerHandle& worker, OwnerRecord& record, Backing& backing);
  static Live describe(const OwnerRecord& record, const std::shared_ptr<WorkerHandle>& worker);
  void undo(const DeviceTable::Lease& lease);
  void step(std::string_view name);

  const Options options_;
  const std::function<void()> onHealth_;
  OwnerRecords records_;
  DeviceTable table_;
  std::mutex settingDevices_;
  SwitchSet switches_;
  const VdpaBus bus_;
  Provisioner provisioner_;
  Backings backings_;
};

}  // namespace vdpa
