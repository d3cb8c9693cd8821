// What vdpa-datapath tells of its devices and attachments without changing them.
#pragma once

#include <string>
#include <vector>

#include "deviceplugin/datapath/attachments/attach_request.h"
#include "deviceplugin/datapath/attachments/node.h"
#include "deviceplugin/datapath/model/device_counters.h"
#include "deviceplugin/datapath/model/device_state.h"

namespace vdpa::datapath {

class Status {
 public:
  explicit Status(Node& node) : node_(node) {}

  // What of an attachment is not as it should be, in words. Throws RefusedError if there is none.
  std::vector<std::string> check(const CheckRequest& request);
  // Of the given devices, or of every attached one.
  std::vector<DeviceCounters> counters(const std::vector<std::string>& ids);

  std::vector<DeviceState> deviceStates() const;
  // Withheld devices too: they have somebody, but it isn't known who.
  std::vector<LiveAttachment> list() const;
  // Why no device at all can be attached; empty: some may.
  std::string notReady() const { return node_.table.notReady(); }
  unsigned engineDeaths() const;
  unsigned withheldDevices() const;

 private:
  Node& node_;
};

}  // namespace vdpa::datapath
