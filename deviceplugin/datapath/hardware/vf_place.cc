#include "deviceplugin/datapath/hardware/vf_place.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "common/sysfs_names.h"
#include "deviceplugin/datapath/hardware/sysfs_file.h"

namespace vdpa::datapath {
namespace {

namespace fs = std::filesystem;

// The first of a function's netdevs that represents no other function.
std::string ownNetdev(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    std::string port;
    std::ifstream(entry.path() / "phys_port_name") >> port;
    if (!isRepresentor(port)) names.push_back(entry.path().filename());
  }
  return names.empty() ? "" : *std::ranges::min_element(names);
}

}  // namespace

std::string describe(const VfPlace& place) {
  return fmt::format("VF {} of {} ({})", place.number, place.pf, place.driver);
}

std::optional<VfPlace> findVfPlace(const std::string& sysfs, const std::string& pciAddress) {
  if (pciAddress.empty()) return std::nullopt;
  const std::string physfn = sysfs + "/bus/pci/devices/" + pciAddress + "/physfn";
  VfPlace place;
  std::string netdevs = physfn + "/net";
  place.pf = ownNetdev(netdevs);
  // A virtio function's netdev is one level deeper.
  if (const std::string virtio = entryStarting(physfn, "virtio");
      place.pf.empty() && !virtio.empty()) {
    netdevs = physfn + "/" + virtio + "/net";
    place.pf = ownNetdev(netdevs);
  }
  if (place.pf.empty()) return std::nullopt;
  if (!(std::ifstream(netdevs + "/" + place.pf + "/ifindex") >> place.pfIndex)) return std::nullopt;
  place.driver = linkName(physfn + "/driver");
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(physfn, error)) {
    const auto number = vfNumber(entry.path().filename().string());
    if (!number || linkName(entry.path()) != pciAddress) continue;
    place.number = *number;
    return place;
  }
  return std::nullopt;
}

}  // namespace vdpa::datapath
