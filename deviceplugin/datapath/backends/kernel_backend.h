// Devices on the kernel's vdpa bus: behind a worker, or the character device in the pod itself.
#pragma once

#include <map>
#include <mutex>

#include "deviceplugin/datapath/backends/backend.h"
#include "deviceplugin/datapath/hardware/provisioner.h"
#include "deviceplugin/datapath/hardware/vdpa_bus.h"

namespace vdpa::datapath {

class KernelBackend : public Backend {
 public:
  KernelBackend(const VdpaBus& bus, Provisioner& provisioner)
      : bus_(bus), provisioner_(provisioner) {}

  PortSettings resolve(const std::string& id, const OfferedDevice& offer,
                       const Settings& settings) const override;
  OfferedDevice prepare(const std::string& id, OfferedDevice offer, Clock::time_point deadline,
                        const std::function<bool()>& calledOff) override;
  void start(OwnerRecord& record) override;
  std::optional<EngineAddress> engine(const OwnerRecord& record) const override;
  void startFailed(const std::string& id, const std::string& reason) override;
  void stop(const OwnerRecord& record) override;
  void check(const OwnerRecord& record, Differences& differences) override;
  std::string unhealthy(const std::string& id, const OfferedDevice& offer) const override;

  // Its worker could not open it.
  bool due(const std::string& id) const;
  // Looks whether it can be opened now. True if it is well again.
  bool retry(const std::string& id, const OfferedDevice& offer);

 private:
  const VdpaBus& bus_;
  Provisioner& provisioner_;
  mutable std::mutex mutex_;
  std::map<std::string, std::string> failures_;  // device ID to why its worker could not start
};

}  // namespace vdpa::datapath
