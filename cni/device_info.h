// The device-info file that Multus publishes in network-status, and by which applications find
// their sockets.
//
// Source: Network Plumbing WG, Device Information Specification 1.1.0, sections 3, 4.2 and 5.1.2.
#pragma once

#include <string>

#include "datapath.pb.h"

namespace vdpa::cni {

// Sees to it that `path` describes `attachment`. What is there, which is the device plugin's own
// description, stays if it is right, keeps what else it tells if it lacks something, and is
// replaced if it is of something else. Links, FIFOs and whatever else is not a regular file are
// neither followed nor replaced. Removing it is the delegating plugin's. `path` is absolute. Throws
// std::runtime_error (std::system_error where a call failed).
void writeDeviceInfo(const std::string& path, const datapath::v1::Attachment& attachment);

// Removes the temporary file that writeDeviceInfo() leaves when it is killed; the file itself
// stays. Throws std::system_error.
void removeUnfinishedDeviceInfo(const std::string& path);

}  // namespace vdpa::cni
