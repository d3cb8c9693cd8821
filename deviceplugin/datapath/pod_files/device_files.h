// The files for an application beside its socket: device.json for programs that parse it, eal-args
// for DPDK programs to start with.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>

#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {

nlohmann::json deviceJson(const OwnerRecord& record);
// One line, without a newline; empty for a netdev, which is not for DPDK.
std::string ealArguments(const Attachment& attachment);

// Writes both files into `directory`, readable by all. Throws std::system_error.
void writeDeviceFiles(const std::string& directory, const OwnerRecord& record);

}  // namespace vdpa::datapath
