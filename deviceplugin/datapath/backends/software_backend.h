// Ports of the resource's switch.
#pragma once

#include "deviceplugin/datapath/backends/backend.h"
#include "deviceplugin/datapath/processes/switch_set.h"

namespace vdpa::datapath {

class SoftwareBackend : public Backend {
 public:
  explicit SoftwareBackend(SwitchSet& switches) : switches_(switches) {}

  PortSettings resolve(const std::string& id, const OfferedDevice& offer,
                       const PortSettings& settings) const override;
  OfferedDevice prepare(const std::string& id, OfferedDevice offer, Clock::time_point deadline,
                        const std::function<bool()>& calledOff) override;
  void addPort(const OwnerRecord& record) override;
  std::optional<EngineAddress> engine(const OwnerRecord& record) const override;
  void stop(const OwnerRecord& record) override;
  void check(const OwnerRecord& record, Differences& differences) override;
  std::string unhealthy(const std::string& id, const OfferedDevice& offer) const override;

 private:
  std::shared_ptr<SwitchHandle> switchOf(const OwnerRecord& record) const;

  SwitchSet& switches_;
};

}  // namespace vdpa::datapath
