#include "deviceplugin/kubelet/device_info_files.h"

#include <unistd.h>

#include <filesystem>
#include <set>
#include <string>
#include <system_error>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/json.h"
#include "common/mutex.h"
#include "common/naming.h"
#include "deviceplugin/resources/device.h"

namespace vdpa::plugin {
namespace {

constexpr const char* kSuffix = "-device.json";

std::string infoOf(const Device& device) {
  nlohmann::json info{{"version", "1.1.0"}};
  if (device.attach == Attach::vhostUser) {
    info["type"] = "vhost-user";
    info["vhost-user"] = {{"mode", "client"}, {"path", podSocket(device.id)}};
    return jsonText(info);
  }
  info["type"] = "vdpa";
  auto& vdpa = info["vdpa"];
  vdpa["parent-device"] = device.vdpa;
  vdpa["driver"] = device.attach == Attach::vhostVdpa ? "vhost" : "virtio";
  if (device.attach == Attach::vhostVdpa) vdpa["path"] = "/dev/" + device.characterDevice;
  if (!device.pciAddress.empty()) vdpa["pci-address"] = device.pciAddress;
  return jsonText(info);
}

}  // namespace

std::string DeviceInfoFiles::pathOf(const std::string& resource,
                                    const std::string& deviceId) const {
  return directory_ + "/" + fileName(resource) + "-" + deviceId + kSuffix;
}

void DeviceInfoFiles::write(const std::string& resource, const Device& device) {
  const std::string path = pathOf(resource, device.id), content = infoOf(device);
  Lock lock(mutex_);
  std::string& written = written_[{resource, device.id}];
  if (written == content && ::access(path.c_str(), F_OK) == 0) return;
  std::filesystem::create_directories(directory_);
  writeFileAtomically(path, content, Durability::memory);
  written = content;
}

void DeviceInfoFiles::removeOthers(const std::string& resource, const std::set<std::string>& kept) {
  Lock lock(mutex_);
  std::error_code ignored;
  const std::string prefix = fileName(resource) + "-", suffix = kSuffix;
  for (const auto& entry : std::filesystem::directory_iterator(directory_, ignored)) {
    const std::string name = entry.path().filename();
    if (name.size() <= prefix.size() + suffix.size() || !name.starts_with(prefix) ||
        !name.ends_with(suffix))
      continue;
    const std::string id = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
    // "vdpa.io/nic" must not take the files of "vdpa.io/nic-b".
    const std::string stem = resource.substr(resource.find('/') + 1) + "-";
    const bool port = id.starts_with(stem) && id.size() > stem.size() &&
                      id.find_first_not_of("0123456789", stem.size()) == std::string::npos;
    const bool ours = port || isPciAddress(id) || written_.contains({resource, id});
    if (!ours || kept.contains(id)) continue;
    std::filesystem::remove(entry.path(), ignored);
    written_.erase({resource, id});
  }
}

}  // namespace vdpa::plugin
