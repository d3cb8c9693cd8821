// Paths in a network's configuration. Its author is not the node's administrator, and this program
// runs as root, so each path is confined to its own directory.
#pragma once

#include <string>
#include <vector>

#include "common/unique_fd.h"

namespace vdpa::cni {

// `path` with its links resolved. Throws Error (invalidConfig) unless both are below /run/vdpa or
// one of `roots` (a ".." in `path` removes the name before it, even a link's), or if the result is
// not named datapath.sock or is too long for a socket's address. Looks up no name outside those
// directories. The file needn't exist.
std::string confineSocket(const std::string& path, const std::vector<std::string>& roots);

// An empty path stays empty. Throws Error (invalidConfig) unless `path` is below /var/log.
std::string confineLog(const std::string& path);

// Opens a path from confineLog() for appending; creates the file, but no directories. Never blocks.
// Throws std::system_error (the file or a directory below /var/log is a link) or std::runtime_error
// (not a regular file).
UniqueFd openLog(const std::string& path);

// An empty path stays empty. Throws Error (invalidConfig) unless it is in Multus's directory and
// has the name that Multus gives to this attachment's file only.
std::string confineDeviceInfo(const std::string& path, const std::string& containerId,
                              const std::string& interface);

}  // namespace vdpa::cni
