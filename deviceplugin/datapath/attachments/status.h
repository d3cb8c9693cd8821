// Reports devices and attachments without changing them.
#pragma once

#include <map>
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

  struct Checked {
    LiveAttachment attachment;
    std::vector<std::string> differences;  // where it isn't as it should be
  };
  // Throws RefusedError: notFound if the interface has no attachment, invalidArgument if it has
  // another device.
  Checked check(const CheckRequest& request);
  // Of the given devices, or of every attached one.
  std::vector<DeviceCounters> counters(const std::vector<std::string>& ids);

  std::vector<DeviceState> deviceStates() const;
  // Includes withheld devices: they have an owner, but an unknown one.
  std::vector<LiveAttachment> list() const;
  // Why no device can be attached; empty: devices can be.
  std::string notReady() const { return node_.table.notReady(); }
  bool drained() const { return node_.table.closed(); }
  unsigned engineDeaths() const;
  // By the engine's title, "vdpa-switch of vdpa.io/nic"; empty before its first answer.
  std::map<std::string, std::string> engineVersions() const;
  unsigned withheldDevices() const;

 private:
  Node& node_;
};

}  // namespace vdpa::datapath
