// A container's interface while it is being attached: it cannot be attached twice, and a Detach
// reaches it.
#pragma once

#include <string>

#include "deviceplugin/datapath/attachments/device_table.h"
#include "deviceplugin/datapath/model/attachment.h"

namespace vdpa::datapath {

class InterfaceClaim {
 public:
  // Throws RefusedError as checkOwner() does; alreadyExists when the interface has a device or is
  // getting one; aborted when the table is closed. The references outlive this.
  InterfaceClaim(DeviceTable& table, const Owner& owner, const std::string& deviceId);
  ~InterfaceClaim();
  InterfaceClaim(const InterfaceClaim&) = delete;
  InterfaceClaim& operator=(const InterfaceClaim&) = delete;

 private:
  DeviceTable& table_;
  const Owner& owner_;
};

}  // namespace vdpa::datapath
