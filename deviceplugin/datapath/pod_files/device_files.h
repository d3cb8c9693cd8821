// What an application finds beside its socket: device.json for programs that read, eal-args for
// DPDK programs that only want to start.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>

#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {

nlohmann::json deviceJson(const OwnerRecord& record);
// One line, without its end; empty for a netdev, which is not for DPDK.
std::string ealArguments(const Attachment& attachment);

// Writes both into `directory`, readable by all. Throws std::system_error.
void writeDeviceFiles(const std::string& directory, const OwnerRecord& record);

}  // namespace vdpa::datapath
