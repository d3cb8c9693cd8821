// Ports of the resource's switch.
#pragma once

#include "deviceplugin/datapath/backends/backend.h"
#include "deviceplugin/datapath/processes/switch_set.h"

namespace vdpa {

class SoftwareBacking : public Backing {
 public:
  explicit SoftwareBacking(SwitchSet& switches) : switches_(switches) {}

  PortSettings settle(const std::string& id, const Offer& offer,
                      const Settings& settings) const override;
  Offer prepare(const std::string& id, Offer offer, Clock::time_point deadline,
                const std::function<bool()>& calledOff) override;
  void start(OwnerRecord& record) override;
  std::optional<WorkerHandle::Engine> engine(const OwnerRecord& record) const override;
  bool followsFromRecord() const override { return true; }
  void stop(const OwnerRecord& record) override;
  void check(const OwnerRecord& record, Differences& differences) override;
  std::string unhealthy(const std::string& id, const Offer& offer) const override;

 private:
  std::shared_ptr<SwitchHandle> switchOf(const OwnerRecord& record) const;

  SwitchSet& switches_;
};

}  // namespace vdpa
