// Devices on the kernel's vdpa bus: behind a worker, or the character device in the pod itself.
#pragma once

#include <map>
#include <mutex>

#include "deviceplugin/datapath/backends/backend.h"
#include "deviceplugin/datapath/hardware/provisioner.h"
#include "deviceplugin/datapath/hardware/vdpa_bus.h"

namespace vdpa {

class KernelBacking : public Backing {
 public:
  KernelBacking(const VdpaBus& bus, Provisioner& provisioner)
      : bus_(bus), provisioner_(provisioner) {}

  PortSettings settle(const std::string& id, const Offer& offer,
                      const Settings& settings) const override;
  Offer prepare(const std::string& id, Offer offer, Clock::time_point deadline,
                const std::function<bool()>& calledOff) override;
  void start(OwnerRecord& record) override;
  std::optional<WorkerHandle::Engine> engine(const OwnerRecord& record) const override;
  void startFailed(const std::string& id, const std::string& reason) override;
  void stop(const OwnerRecord& record) override;
  void check(const OwnerRecord& record, Differences& differences) override;
  std::string unhealthy(const std::string& id, const Offer& offer) const override;

  // Its worker could not open it.
  bool due(const std::string& id) const;
  // Looks whether it can be opened now. True if it is well again.
  bool retry(const std::string& id, const Offer& offer);

 private:
  const VdpaBus& bus_;
  Provisioner& provisioner_;
  mutable std::mutex mutex_;
  std::map<std::string, std::string> failures_;  // device ID to why its worker could not start
};

}  // namespace vdpa
