// Devices behind DPDK's vDPA drivers: a vdpa-pmd for each attached one.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/mutex.h"
#include "deviceplugin/datapath/backends/backend.h"
#include "deviceplugin/datapath/backends/failed_devices.h"
#include "deviceplugin/datapath/model/queue_events.h"
#include "deviceplugin/datapath/processes/supervised_process.h"

namespace vdpa::datapath {

class DpdkBackend : public Backend {
 public:
  // `onChange` is called from any thread when unhealthy() may have changed.
  DpdkBackend(EventThread& thread, const Programs& programs, const Paths& paths,
              std::function<void()> onChange);

  PortSettings resolve(const std::string& id, const OfferedDevice& offer,
                       const PortSettings& settings) const override;
  OfferedDevice prepare(const std::string& id, OfferedDevice offer, Clock::time_point deadline,
                        const std::function<bool()>& calledOff) override;
  void start(OwnerRecord& record) override;
  std::optional<EngineAddress> engine(const OwnerRecord& record) const override;
  void startFailed(const std::string& id, const std::string& reason) override;
  void resume(const OwnerRecord& record) override;
  void stop(const OwnerRecord& record) override;
  void check(const OwnerRecord& record, Differences& differences) override;
  std::string unhealthy(const std::string& id, const OfferedDevice& offer) const override;
  // For a device that its driver did not accept; retry() starts it briefly.
  bool due(const std::string& id) const override { return failures_.due(id); }
  bool retry(const std::string& id, const OfferedDevice& offer) override;

  // Ends processes of an earlier run whose device isn't attached, and returns those devices' IDs.
  std::vector<std::string> stopOthers(const std::function<bool(const std::string& id)>& attached);
  // Null if there is none.
  std::shared_ptr<SupervisedProcess> find(const std::string& id) const;
  // Ends the device's process and starts the program that is installed now.
  void upgrade(const OwnerRecord& record);
  unsigned deaths() const;
  // Of each process, by device ID.
  std::map<std::string, unsigned> deathsByDevice() const;
  // As the device's driver reports them. Empty if it has no process. Throws as
  // SupervisedProcess::call().
  std::vector<QueueEvents> readQueues(const std::string& id,
                                      std::chrono::milliseconds timeout) const;

 private:
  std::shared_ptr<SupervisedProcess> launch(const std::string& id, const DeviceConfig& device);
  // Throws with the reason if the driver doesn't accept the device.
  std::shared_ptr<SupervisedProcess> startDriver(const std::string& id, const DeviceConfig& device);
  void end(const std::string& id);

  EventThread& thread_;
  const Programs programs_;
  const Paths paths_;
  const std::function<void()> onChange_;
  FailedDevices failures_{std::chrono::seconds(2), std::chrono::seconds(300)};
  mutable Mutex mutex_;
  // By device ID.
  std::map<std::string, std::shared_ptr<SupervisedProcess>> processes_ GUARDED_BY(mutex_);
};

}  // namespace vdpa::datapath
