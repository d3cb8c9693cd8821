// Devices under virtio_vdpa: the kernel's netdev, moved into the pod.
#pragma once

#include "deviceplugin/datapath/backends/backend.h"
#include "deviceplugin/datapath/hardware/provisioner.h"
#include "deviceplugin/datapath/hardware/vdpa_bus.h"

namespace vdpa::datapath {

class VirtioVdpaBackend : public Backend {
 public:
  VirtioVdpaBackend(const VdpaBus& bus, Provisioner& provisioner)
      : bus_(bus), provisioner_(provisioner) {}

  PortSettings resolve(const std::string& id, const OfferedDevice& offer,
                       const PortSettings& settings) const override;
  OfferedDevice prepare(const std::string& id, OfferedDevice offer, Clock::time_point deadline,
                        const std::function<bool()>& calledOff) override;
  void complete(OwnerRecord& record) const override;
  void start(OwnerRecord& record) override;
  void setAddresses(OwnerRecord& record, const PodAddresses& before) override;
  void stop(const OwnerRecord& record) override;
  void check(const OwnerRecord& record, Differences& differences) override;
  std::string unhealthy(const std::string& id, const OfferedDevice& offer) const override;

 private:
  const VdpaBus& bus_;
  Provisioner& provisioner_;
};

}  // namespace vdpa::datapath
