// Devices on the kernel's vdpa bus: behind a worker, or the character device in the pod itself.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "deviceplugin/datapath/backends/backend.h"
#include "deviceplugin/datapath/backends/failed_devices.h"
#include "deviceplugin/datapath/hardware/provisioner.h"
#include "deviceplugin/datapath/hardware/vdpa_bus.h"

namespace vdpa::datapath {

class KernelBackend : public Backend {
 public:
  KernelBackend(const VdpaBus& bus, Provisioner& provisioner)
      : bus_(bus), provisioner_(provisioner) {}

  PortSettings resolve(const std::string& id, const OfferedDevice& offer,
                       const PortSettings& settings) const override;
  OfferedDevice prepare(const std::string& id, OfferedDevice offer, Clock::time_point deadline,
                        const std::function<bool()>& calledOff) override;
  void start(OwnerRecord& record) override;
  std::optional<EngineAddress> engine(const OwnerRecord& record) const override;
  void startFailed(const std::string& id, const std::string& reason) override;
  void stop(const OwnerRecord& record) override;
  void check(const OwnerRecord& record, Differences& differences) override;
  std::string unhealthy(const std::string& id, const OfferedDevice& offer) const override;
  // For a device that its worker could not open.
  bool due(const std::string& id) const override { return failures_.due(id); }
  bool retry(const std::string& id, const OfferedDevice& offer) override;

 private:
  const VdpaBus& bus_;
  Provisioner& provisioner_;
  FailedDevices failures_{std::chrono::seconds(0), std::chrono::seconds(0)};
};

}  // namespace vdpa::datapath
