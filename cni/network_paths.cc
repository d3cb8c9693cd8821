#include "cni/network_paths.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "cni/error.h"
#include "cni/json_object.h"
#include "common/errors.h"
#include "common/unique_fd.h"
#include "common/unix_socket.h"

namespace vdpa::cni {
namespace {

namespace fs = std::filesystem;

// On most nodes /var/run is a link to /run.
constexpr const char* kSockets[] = {"/run/vdpa", "/var/run/vdpa"};
// The datapath's own socket (common/paths.h). The sockets of devices and of the programs that serve
// them are in folders beside it: a connection of ours would displace a pod's or the datapath's.
constexpr std::string_view kSocketName = "datapath.sock";
constexpr std::string_view kLogs = "/var/log/";
// Multus's directory. It names the files "<network>-<container>_<interface>": newCNIRuntimeConf()
// of Multus 4.2.2 and 4.3.0. GetCNIDeviceInfoPath() of the Network Plumbing Working Group's client
// 1.7.6 replaces '/' by '-'; neither container nor interface contains a '/'.
constexpr std::string_view kDeviceInfo = "/var/run/k8s.cni.cncf.io/devinfo/cni/";

bool isBelow(const fs::path& path, const fs::path& directory) {
  const auto [end, rest] =
      std::mismatch(directory.begin(), directory.end(), path.begin(), path.end());
  return end == directory.end() && rest != path.end();
}

// As configured by the administrator, and with its links resolved.
std::vector<fs::path> namesOf(const fs::path& root) {
  std::vector<fs::path> names{root.lexically_normal()};
  std::error_code error;
  if (auto real = fs::weakly_canonical(root, error); !error) names.push_back(std::move(real));
  for (auto& name : names)
    if (!name.has_filename()) name = name.parent_path();  // of "/tmp/"
  return names;
}

}  // namespace

std::string confineSocket(const std::string& path, const std::vector<std::string>& roots) {
  if (path.size() > kMaxSocketPath)
    throw Error(Code::invalidConfig, fmt::format("datapathSocket has {} bytes; at most {} fit",
                                                 path.size(), kMaxSocketPath));
  std::vector<std::string> places(std::begin(kSockets), std::end(kSockets));
  places.insert(places.end(), roots.begin(), roots.end());
  std::vector<fs::path> directories;
  for (const auto& place : places)
    for (auto& name : namesOf(place)) directories.push_back(std::move(name));
  const auto inside = [&](const fs::path& candidate) {
    return std::any_of(directories.begin(), directories.end(),
                       [&](const fs::path& directory) { return isBelow(candidate, directory); });
  };
  // No lookups elsewhere: one on a dead NFS mount does not return.
  const fs::path named = fs::path(path).lexically_normal();
  std::error_code error;
  fs::path found;
  if (named.is_absolute() && inside(named)) found = fs::weakly_canonical(named, error);
  if (error || found.filename() != kSocketName || !inside(found))
    throw Error(Code::invalidConfig,
                fmt::format("datapathSocket '{}': expected vdpa-datapath's socket, {} below {}; "
                            "for another directory, the node's administrator sets VDPA_CNI_ROOTS "
                            "in the environment of Multus",
                            path, kSocketName, fmt::join(places, ", ")));
  if (found.native().size() > kMaxSocketPath)
    throw Error(Code::invalidConfig,
                fmt::format("datapathSocket '{}' resolves to {}, which has {} "
                            "bytes; at most {} fit",
                            path, excerpt(found.native()), found.native().size(), kMaxSocketPath));
  return found;
}

std::string confineLog(const std::string& path) {
  const bool inside = path.size() > kLogs.size() && path.starts_with(kLogs) &&
                      path.find("/../") == std::string::npos && !path.ends_with("/..");
  if (!path.empty() && !inside)
    throw Error(Code::invalidConfig,
                fmt::format("logFile '{}': expected a file below {}", excerpt(path, 100), kLogs));
  return path;
}

UniqueFd openLog(const std::string& path) {
  // relative_path(), as the part after a doubled slash must not start at the root.
  const fs::path relative = fs::path(path.substr(kLogs.size())).relative_path();
  // The administrator may have made /var/log itself a link.
  UniqueFd directory(checked(::open(std::string(kLogs).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC),
                             "cannot open logFile {}", path));
  for (const auto& part : relative.parent_path())
    directory = UniqueFd(checked(
        ::openat(directory.get(), part.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
        "cannot open logFile {}", path));
  UniqueFd file(
      checked(::openat(directory.get(), relative.filename().c_str(),
                       O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0640),
              "cannot open logFile {}", path));
  struct stat status {};
  checked(::fstat(file.get(), &status), "cannot open logFile {}", path);
  if (!S_ISREG(status.st_mode))
    throw std::runtime_error(fmt::format("cannot open logFile {}: not a regular file", path));
  return file;
}

std::string confineDeviceInfo(const std::string& path, const std::string& containerId,
                              const std::string& interface) {
  if (path.empty()) return path;
  const std::string ending = fmt::format("-{}_{}", containerId, interface);
  if (!path.starts_with(kDeviceInfo) || !path.ends_with(ending) ||
      path.find('/', kDeviceInfo.size()) != std::string::npos)
    throw Error(Code::invalidConfig,
                fmt::format("runtimeConfig.CNIDeviceInfoFile '{}': expected a file in {} whose "
                            "name ends in '{}', as Multus names it; a network lists "
                            "CNIDeviceInfoFile in its 'capabilities' and has no 'runtimeConfig'",
                            excerpt(path, 400), kDeviceInfo, ending));
  return path;
}

}  // namespace vdpa::cni
