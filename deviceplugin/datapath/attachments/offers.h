// The devices that the device plugin offers, and retries for those that could not be started.
#pragma once

#include <string>
#include <vector>

#include "deviceplugin/datapath/attachments/node.h"

namespace vdpa::datapath {

class Offers {
 public:
  explicit Offers(Node& node) : node_(node) {}

  // Throws RefusedError for an invalid set.
  void setDevices(const std::vector<Resource>& resources);
  // Retries free devices that could not be started.
  void retryFailed();

 private:
  bool retryFailed(const std::string& id);

  Node& node_;
};

}  // namespace vdpa::datapath
