// Reading and writing the kernel's attribute files.
#pragma once

#include <string>

namespace vdpa::datapath {

// Writes in one call, as attributes require. Throws std::system_error naming file and value.
void writeAttribute(const std::string& path, const std::string& value);

// The last part of what a link points to: a driver's name. Empty if there is no link.
std::string linkName(const std::string& path);

// The first entry of a directory that starts with `prefix`; empty if there is none.
std::string entryStarting(const std::string& directory, const std::string& prefix);

}  // namespace vdpa::datapath
