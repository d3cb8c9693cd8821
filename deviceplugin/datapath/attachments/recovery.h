// The start of vdpa-datapath: turns owner records and running processes into attachments.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "deviceplugin/datapath/attachments/node.h"

namespace vdpa::datapath {

class Recovery {
 public:
  explicit Recovery(Node& node) : node_(node) {}

  // Adopts running processes, restarts missing ones, and undoes attachments that are unfinished or
  // of an earlier boot. To be called before anything else uses the node.
  void run();

 private:
  void endEarlierBoot(OwnerRecordStore::Loaded& loaded);
  void stopOthers(const std::set<std::string>& inUse);
  void withhold(const std::string& id, const std::string& reason);
  void startSwitches(const std::vector<OwnerRecord>& live);
  void resume(const OwnerRecord& record);
  void undoUnfinished(OwnerRecord record);

  Node& node_;
};

}  // namespace vdpa::datapath
