#include "deviceplugin/kubelet/plugin_socket.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <system_error>

#include "common/log.h"
#include "common/naming.h"
#include "common/unix_socket.h"

namespace vdpa::plugin {
namespace {

constexpr std::string_view kSuffix = ".sock";
constexpr size_t kDigits = 8;

bool belongsTo(std::string_view resource, std::string_view file) {
  const std::string base = fileName(resource);
  if (!file.starts_with(base) || !file.ends_with(kSuffix)) return false;
  file.remove_prefix(base.size());
  file.remove_suffix(kSuffix.size());
  if (file.empty()) return true;  // release 0.1.0
  return file.size() == 1 + kDigits && file[0] == '-' &&
         file.find_first_not_of("0123456789abcdef", 1) == std::string_view::npos;
}

// The kernel refuses connections to a socket file whose listener is gone (unix(7)).
bool isAbandoned(const std::string& path) {
  try {
    connectUnix(path);
    return false;
  } catch (const std::system_error& error) {
    return error.code() == std::errc::connection_refused;
  }
}

}  // namespace

std::string pluginSocketName(std::string_view resource, uint32_t number) {
  return fmt::format("{}-{:0{}x}{}", fileName(resource), number, kDigits, kSuffix);
}

std::string newPluginSocketName(const std::string& directory, std::string_view resource) {
  std::random_device random;
  for (;;) {
    const std::string name = pluginSocketName(resource, random());
    if (!std::filesystem::exists(std::filesystem::symlink_status(directory + "/" + name)))
      return name;
  }
}

void removeLeftoverSockets(const std::string& directory, const std::set<std::string>& resources) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename();
    const auto ours = [&](const std::string& resource) { return belongsTo(resource, name); };
    if (!std::any_of(resources.begin(), resources.end(), ours)) continue;
    std::error_code failed;
    if (!std::filesystem::is_socket(entry.symlink_status(failed)) || !isAbandoned(entry.path()))
      continue;
    if (std::filesystem::remove(entry.path(), failed))
      log::info("removed {}, left by a killed plugin", entry.path().string());
    else if (failed)
      log::warn("cannot remove {}, left by a killed plugin: {}", entry.path().string(),
                failed.message());
  }
  if (error) log::warn("cannot list {}: {}", directory, error.message());
}

}  // namespace vdpa::plugin
