// Stops every process that serves devices, before vdpa-datapath is removed from a node.
#pragma once

#include <string>
#include <vector>

#include "deviceplugin/datapath/attachments/node.h"

namespace vdpa::datapath {

class Drain {
 public:
  explicit Drain(Node& node) : node_(node) {}

  // The result, for the operator.
  struct Drained {
    std::vector<std::string> ended;
    std::vector<std::string> left;  // with the reason
  };
  // Stops every process that serves devices, and offers no device from then on. Throws RefusedError
  // (inUse) while there are attachments.
  Drained run();

 private:
  void endProcesses(Drained& drained);

  Node& node_;
};

}  // namespace vdpa::datapath
