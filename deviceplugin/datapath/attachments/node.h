// The parts behind a node's attachments. Each class beside this file does one job with them.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/mac_address.h"
#include "common/mutex.h"
#include "common/paths.h"
#include "common/pod_resources.h"
#include "deviceplugin/datapath/attachments/device_table.h"
#include "deviceplugin/datapath/attachments/mac_registry.h"
#include "deviceplugin/datapath/attachments/orphans.h"
#include "deviceplugin/datapath/backends/backends.h"
#include "deviceplugin/datapath/hardware/vf_configuration.h"
#include "deviceplugin/datapath/model/programs.h"
#include "deviceplugin/datapath/processes/switch_set.h"
#include "deviceplugin/datapath/records/owner_record_store.h"

namespace vdpa::datapath {

// An attachment with its status.
struct LiveAttachment {
  Attachment attachment;
  std::string backend;
  std::string state;         // as in datapath.proto
  std::string vdpa, virtio;  // as in datapath.proto
  unsigned workerDeaths = 0;
  std::string outlook;  // as in datapath.proto
  std::string workerVersion;
  bool withheld =
      false;  // its owner is unknown, and the rest empty but for device, resource and state
};

// The kernel's vDPA devices, as in VdpaNetlink. Exceptions say why a call failed.
struct VdpaDevices {
  std::function<VdpaAttributes(const std::string& name, const std::string& managementDevice,
                               const VdpaAttributes& attributes)>
      add = {};
  std::function<void(const std::string& name)> remove = {};
  // Without it a device has its own.
  std::function<std::optional<MacAddress>(const std::string& name)> mac = {};
  std::function<bool(const std::string& name, const MacAddress& mac)> setMac = {};
  std::function<unsigned(const std::string& name)> mtu = {};  // 0 if it has none
  // Of its first `queues` virtqueues, what its driver counts. Without it: nothing.
  std::function<std::vector<std::map<std::string, uint64_t>>(const std::string& name,
                                                             unsigned queues)>
      queueEvents = {};
};

struct Node {
  struct Options {
    Programs programs;
    Paths paths;
    std::string bootId;
    // Throws when the kubelet cannot be asked.
    std::function<std::vector<PodDevice>()> listPodDevices;
    VdpaDevices vdpa = {};
    // How long a call waits for an owner to go away or an engine to come up.
    std::chrono::milliseconds timeout = std::chrono::seconds(4);
    // Called after each step of an Attach or Detach; for tests.
    std::function<void(std::string_view step)> onStep = {};
    // How long an orphaned attachment is kept.
    std::chrono::milliseconds releaseAfter = std::chrono::seconds(30);
    // Hardware for tests. Default: the kernel's.
    std::optional<VfConfiguration::Access> hardware = {};
  };

  // `onHealth` is called from threads of the Node when the state of a device may have changed.
  Node(Options options, std::function<void()> onHealth);
  // Leaves all workers and switches running.
  ~Node();

  LiveAttachment describe(const OwnerRecord& record,
                          const std::shared_ptr<WorkerHandle>& worker) const;
  // After each step of an Attach or Detach.
  void step(std::string_view name) const;

  const Options options;
  const std::function<void()> onHealth;
  EventThread supervision;  // of all processes; first, since the members below have some
  OwnerRecordStore records;
  DeviceTable table;
  MacRegistry macs{table};
  Orphans orphans;
  Mutex settingDevices;     // one set of devices at a time; held while switches end
  Mutex deviceDirectories;  // which devices have one, as in the table; held for moments
  SwitchSet switches;
  const VdpaBus bus;
  Provisioner provisioner;
  Backends backends;
  const VfConfiguration changes;
};

}  // namespace vdpa::datapath
