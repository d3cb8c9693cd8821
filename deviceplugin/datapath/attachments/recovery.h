// The start of vdpa-datapath: from the owner records and the processes that run to attachments.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "deviceplugin/datapath/attachments/node.h"

namespace vdpa::datapath {

class Recovery {
 public:
  explicit Recovery(Node& node) : node_(node) {}

  // Takes over what runs, starts again what doesn't, undoes what was not finished or belongs to
  // another boot. Before anybody else uses the node.
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
