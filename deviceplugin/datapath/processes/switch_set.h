// The switches of this node, one for each software resource that is offered or still in use.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/mutex.h"
#include "deviceplugin/datapath/processes/switch_handle.h"

namespace vdpa::datapath {

class SwitchSet {
 public:
  // `onChange`: see SwitchHandle.
  SwitchSet(EventThread& thread, const Programs& programs, const Paths& paths, Holders holders,
            std::function<void()> onChange);

  // One for a resource that pods are attached to.
  void start(const std::string& resource, const SwitchConfig& config, SwitchHandle::Ports ports);
  // Starts, configures and stops until every offered resource that has devices has its switch, and
  // nothing else runs but what has ports. Switches of an earlier life that nobody needs are ended.
  void offer(const std::vector<Resource>& resources);
  // See SwitchHandle::upgrade; nothing if there is no such switch.
  void upgrade(const std::string& resource);
  // Ends those that are neither offered nor in use.
  void collect();

  // Null if there is none.
  std::shared_ptr<SwitchHandle> find(const std::string& resource) const;
  std::map<std::string, std::shared_ptr<SwitchHandle>> all() const;  // by resource

 private:
  void add(const std::string& resource, const SwitchConfig& config, SwitchHandle::Ports ports)
      REQUIRES(changing_);
  void stopStrays();
  bool servesWithheld(const std::string& name) const;

  EventThread& thread_;
  const Programs programs_;
  const Paths paths_;
  const Holders holders_;
  const std::function<void()> onChange_;
  Mutex changing_;  // one change at a time; held while processes stop
  std::set<std::string> offered_ GUARDED_BY(changing_);
  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<SwitchHandle>> switches_ GUARDED_BY(mutex_);
};

}  // namespace vdpa::datapath
