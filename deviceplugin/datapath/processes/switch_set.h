// The switches of this node, one for each software resource that is offered or still in use.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/mutex.h"
#include "deviceplugin/datapath/processes/switch_handle.h"

namespace vdpa::datapath {

class SwitchSet {
 public:
  using Switches = std::map<std::string, std::shared_ptr<SwitchHandle>>;  // by resource

  // `onChange`: see SwitchHandle.
  SwitchSet(EventThread& thread, const Programs& programs, const Paths& paths, Holders holders,
            std::function<void()> onChange);

  // Starts or adopts the switch of a resource that pods are attached to.
  void start(const std::string& resource, const SwitchConfig& config, SwitchHandle::Ports ports);
  // Starts a switch for every offered resource that has devices and no switch yet. settle() does
  // the rest.
  void offer(const std::vector<Resource>& resources);
  // Configures the switches of the resources offered last, and ends those that are neither offered
  // nor in use, also the ones of an earlier vdpa-datapath. Waits until they have ended. Does
  // nothing before the first offer().
  void settle();
  // See SwitchHandle::upgrade; nothing if there is no such switch.
  void upgrade(const std::string& resource);
  // Ends the resource's switch if it is neither offered nor in use. From any thread.
  void collect(const std::string& resource);

  // Null if there is none.
  std::shared_ptr<SwitchHandle> find(const std::string& resource) const;
  Switches all() const;

 private:
  void configure(const std::string& resource);
  void stopStrays();
  bool offered(const std::string& resource) const REQUIRES(mutex_);
  bool servesWithheld(const std::string& name) const;

  EventThread& thread_;
  const Programs programs_;
  const Paths paths_;
  const Holders holders_;
  const std::function<void()> onChange_;
  // Held while a switch is started, or one of an earlier vdpa-datapath without a handle is ended.
  Mutex starting_;
  mutable Mutex mutex_;  // held briefly
  struct Offered {
    SwitchConfig config;
    unsigned stormLimit = 0;  // frames/s of each port; 0: none
    bool operator==(const Offered&) const = default;
  };
  // By resource; none before the first offer().
  std::optional<std::map<std::string, Offered>> offered_ GUARDED_BY(mutex_);
  Switches switches_ GUARDED_BY(mutex_);
};

}  // namespace vdpa::datapath
