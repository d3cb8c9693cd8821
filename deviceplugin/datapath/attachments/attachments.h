// Attaching and detaching: what happens to a device between two owners, step by step, so that a
// crash at any step leaves nothing, or an owner record from which the next start goes on.
#pragma once

#include <chrono>
#include <functional>
#include <set>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "common/paths.h"
#include "common/pod_resources.h"
#include "deviceplugin/datapath/attachments/device_table.h"
#include "deviceplugin/datapath/attachments/orphans.h"
#include "deviceplugin/datapath/backends/backends.h"
#include "deviceplugin/datapath/hardware/vf_configuration.h"
#include "deviceplugin/datapath/model/device_state.h"
#include "deviceplugin/datapath/model/programs.h"
#include "deviceplugin/datapath/processes/switch_set.h"
#include "deviceplugin/datapath/records/owner_records.h"

namespace vdpa::datapath {

struct AttachRequest {
  Owner owner;
  std::string deviceId;
  Settings settings;
  std::vector<std::string> ips;
  std::vector<PodRoute> routes;
  bool addressesFollow = false;  // setAddresses() waits for what attach() started
};

// For Check; of a netdev that others of a chain may have changed since, what it should have now.
struct CheckRequest : AttachRequest {
  std::string interfaceMac;   // empty: what Attach gave it
  unsigned interfaceMtu = 0;  // likewise
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
    std::function<VdpaAttributes(const std::string& name, const std::string& managementDevice,
                                 const VdpaAttributes& attributes)>
        addVdpa;
    std::function<void(const std::string& name)> removeVdpa;
    // How long a call waits for an owner to go or an engine to come.
    std::chrono::milliseconds timeout = std::chrono::seconds(4);
    // Called after each step of an Attach or Detach; for tests.
    std::function<void(std::string_view step)> onStep;
    // How long an attachment that nobody has any more is kept.
    std::chrono::milliseconds releaseAfter = std::chrono::seconds(30);
    // The MAC of a vDPA device, and setting it; see VdpaNetlink. Without them it has its own.
    std::function<std::string(const std::string& name)> vdpaMac = {};
    std::function<bool(const std::string& name, const std::string& mac)> setVdpaMac = {};
    // Hardware for tests. Default: the kernel's.
    std::optional<HardwareChanges::Access> hardware = {};
    // The MTU of a vDPA device, 0 if it has none.
    std::function<unsigned(const std::string& name)> vdpaMtu = {};
  };
  // An attachment and how it does.
  struct Live {
    Attachment attachment;
    std::string backend;
    std::string state;         // as in datapath.proto
    std::string vdpa, virtio;  // likewise
    unsigned workerDeaths = 0;
    std::string outlook;  // as in datapath.proto
    std::string workerVersion;
  };

  // Goes on from the owner records: takes over what runs, starts again what doesn't, undoes what
  // was not finished or belongs to another boot. `onHealth` is called from threads of its own when
  // deviceStates() may be another one.
  Attachments(Options options, std::function<void()> onHealth);
  // Leaves all workers and switches running.
  ~Attachments();

  // The six calls of datapath.proto. They throw RefusedError for what is refused, other
  // exceptions for what failed.
  void setDevices(const std::vector<Resource>& resources);
  Live attach(const AttachRequest& request, const std::function<bool()>& cancelled);
  bool detach(const AttachmentKey& key);
  // Whoever has the device, and a withheld one: for people. Without `force` only if the owner's
  // network namespace is gone. `expected`: who has it as the caller knows; empty: anybody.
  bool release(const std::string& deviceId, const AttachmentKey& expected, bool force);
  Live setAddresses(const AttachmentKey& key, const PodAddresses& addresses);
  std::vector<std::string> check(const CheckRequest& request);
  // Of the given devices, or of every attached one.
  std::vector<DeviceCounters> counters(const std::vector<std::string>& ids);

  std::vector<DeviceState> deviceStates() const;
  // Withheld devices too: they have somebody, but it isn't known who.
  std::vector<Live> list() const;
  std::string notReady() const { return table_.notReady(); }
  unsigned engineDeaths() const;
  unsigned withheldDevices() const;
  Orphans::Counts orphanCounts() const { return orphans_.counts(); }

  // Detaches what nobody will, and what was not detached whole. To be called again and again.
  void reconcile();
  // What drain() did, in words.
  struct Drained {
    std::vector<std::string> ended;
    std::vector<std::string> left;  // with the reason
  };
  // Ends all that serves devices and offers none from then on. Throws RefusedError (inUse) while
  // there are attachments.
  Drained drain();

  // Replaces the engines of another version that run, by the programs that are installed: one at a
  // time, the next when the workers of the one before run again. To be called at the start and
  // after setDevices(), from one thread; an engine that doesn't come up ends it for good.
  void upgradeProcesses(const std::stop_token& stop);

  // Looks again at free devices that could not be started.
  void retryFailed();
  // Makes every Attach that waits give up. To be called before the destructor.
  void shutdown();

 private:
  using Clock = DeviceTable::Clock;

  void recover();
  void endEarlierBoot(OwnerRecords::Loaded& loaded);
  void stopOthers(const std::set<std::string>& inUse);
  void endProcesses(Drained& drained);
  void resume(const OwnerRecord& record);
  void withhold(const std::string& id, const std::string& reason);
  void startSwitches(const std::vector<OwnerRecord>& live);
  void undoUnfinished(OwnerRecord record);
  DeviceTable::Lease takeDevice(const AttachRequest& request, Clock::time_point deadline,
                                const std::function<bool()>& calledOff);
  OfferedDevice prepareOwn(const std::string& id, OfferedDevice offer, Clock::time_point deadline,
                           const std::function<bool()>& calledOff);
  void prepareFor(OwnerRecord& record, const Settings& settings,
                  DeviceTable::Reservation& reservation, Clock::time_point deadline,
                  const std::function<bool()>& calledOff);
  bool mayTakeOver(const OwnerRecord& record, const Owner& requester);
  void waitWorker(WorkerHandle& worker, OwnerRecord& record, Backend& backend, bool once);
  Live describe(const OwnerRecord& record, const std::shared_ptr<WorkerHandle>& worker) const;
  bool retryFailed(const std::string& id);
  void undo(const DeviceTable::Lease& lease);
  void endAttachment(const DeviceTable::Lease& lease);
  void forget(const DeviceTable::Lease& lease);
  void endWithheld(const DeviceTable::Lease& lease);
  void clear(const DeviceTable::Lease& lease);
  void keepingError(const DeviceTable::Lease& lease, const std::function<void()>& action);
  void step(std::string_view name);

  // A switch or a vdpa-pmd, as its renewal sees it.
  struct UpgradableProcess {
    std::string title;
    std::string program;
    std::function<std::shared_ptr<SupervisedProcess>()> process;
    std::function<bool(const DeviceTable::Device& device)> serves;
    std::function<void()> upgrade;
    std::function<void()> go;  // its workers are back
  };
  std::vector<UpgradableProcess> upgradableProcesses();
  void upgradeProcess(const UpgradableProcess& upgradable, const std::stop_token& stop);
  std::map<std::string, std::shared_ptr<WorkerHandle>> runningWorkers(
      const UpgradableProcess& upgradable, const std::stop_token& stop) const;

  const Options options_;
  const std::function<void()> onHealth_;
  OwnerRecords records_;
  DeviceTable table_;
  Orphans orphans_;
  std::mutex settingDevices_;
  SwitchSet switches_;
  const VdpaBus bus_;
  Provisioner provisioner_;
  Backends backends_;
  const HardwareChanges changes_;
  bool upgradeFailed_ = false;  // of the thread of upgradeProcesses() alone
};

}  // namespace vdpa::datapath
