// Ports of the resource's switch.
#pragma once

#include "deviceplugin/datapath/backing.h"
#include "deviceplugin/datapath/switch_set.h"

namespace vdpa {

class SoftwareBacking : public Backing {
 public:
  explicit SoftwareBacking(SwitchSet& switches) : switches_(switches) {}

  PortSettings settle(const std::string& id, const Offer& offer,
                      const Settings& settings) const override;
  Offer prepare(const std::string& id, Offer offer, Clock::time_point deadline,
                const std::function<bool()>& calledOff) override;
  std::optional<WorkerHandle::Engine> start(OwnerRecord& record) override;
  std::optional<WorkerHandle::Engine> resume(const OwnerRecord& record) override;
  void stop(const OwnerRecord& record) override;
  void check(const OwnerRecord& record, Differences& differences) override;
  std::string unhealthy(const std::string& id, const Offer& offer) const override;

 private:
  SwitchSet& switches_;
};

}  // namespace vdpa
