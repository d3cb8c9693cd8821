// The device-info file that Multus publishes in network-status; applications find their sockets
// through it.
//
// Source: Network Plumbing WG, Device Information Specification 1.1.0, sections 3, 4.2 and 5.1.2.
#pragma once

#include <string>

#include "datapath.pb.h"

namespace vdpa::cni {

// Makes `path` describe `attachment`. An existing description (the device plugin writes one) stays
// if it is right, is completed if keys are missing, and is replaced if it is of another type.
// Links, FIFOs and other files that are not regular are neither followed nor replaced. The
// delegating plugin removes the file. `path` is absolute. Throws std::runtime_error
// (std::system_error if a call failed).
void writeDeviceInfo(const std::string& path, const datapath::v1::Attachment& attachment);

// Removes the temporary file that a killed writeDeviceInfo() left behind; the file itself stays.
// Throws std::system_error.
void removeUnfinishedDeviceInfo(const std::string& path);

}  // namespace vdpa::cni
