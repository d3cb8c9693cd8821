// Paths that a network's configuration names. Its author is not the node's administrator, and this
// program runs as root: each path is confined to a place of its own.
#pragma once

#include <string>
#include <vector>

#include "common/unique_fd.h"

namespace vdpa::cni {

// `path` with its links resolved. Throws Error (invalidConfig) unless both are below /run/vdpa or
// one of `roots` (a ".." in `path` takes the name before it away, even a link's), and if the result
// is not named datapath.sock or is too long for a socket's address. Looks up no name outside of
// those directories. Nothing needs to exist there.
std::string confineSocket(const std::string& path, const std::vector<std::string>& roots);

// An empty path stays empty. Throws Error (invalidConfig) for what is not below /var/log.
std::string confineLog(const std::string& path);

// Opens for appending what confineLog() returned; creates it, but no directories. Never blocks.
// Throws std::system_error (a link in the place of the file or of a directory below /var/log) or
// std::runtime_error (not a regular file).
UniqueFd openLog(const std::string& path);

// An empty path stays empty. Throws Error (invalidConfig) unless it is a name in Multus's directory
// that Multus gives to this attachment's file and to no other's.
std::string confineDeviceInfo(const std::string& path, const std::string& containerId,
                              const std::string& interface);

}  // namespace vdpa::cni
