// What an application finds beside its socket: device.json for programs that read, eal-args for
// DPDK programs that only want to start.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "deviceplugin/datapath/attachment.h"

namespace vdpa {

nlohmann::json deviceJson(const Attachment& attachment);
// One line, without its end.
std::string ealArguments(const Attachment& attachment);

// Writes both into `directory`, readable by all. Throws std::system_error.
void writeDeviceFiles(const std::string& directory, const Attachment& attachment);

}  // namespace vdpa
