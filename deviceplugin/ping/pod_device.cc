#include "deviceplugin/ping/pod_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "common/json.h"
#include "common/mac_address.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/guest/guest.h"
#include "deviceplugin/ping/message.h"

namespace vdpa::ping {
namespace {

namespace fs = std::filesystem;

// What every release accepts on a software port; its queueSize suits drivers in general.
constexpr uint32_t kSwitchRing = 1024;

std::vector<std::string> idsBelow(const std::string& directory) {
  std::vector<std::string> ids;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error))
    if (fs::exists(entry.path() / "device.json", error)) ids.push_back(entry.path().filename());
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace

PodDevice findDevice(const std::string& directory, const std::string& id) {
  PodDevice device;
  device.id = id;
  if (id.empty()) {
    const auto ids = idsBelow(directory);
    if (ids.empty())
      throw std::runtime_error(
          fmt::format("no device below {}: the pod needs both a resource such as vdpa.io/nic and "
                      "the annotation k8s.v1.cni.cncf.io/networks",
                      directory));
    if (ids.size() > 1)
      throw std::runtime_error(fmt::format("{} devices below {}: name one of {} with --device",
                                           ids.size(), directory, fmt::join(ids, ", ")));
    device.id = ids.front();
  }
  const fs::path folder = fs::path(directory) / device.id, description = folder / "device.json";
  std::ifstream file(description);
  if (!file)
    throw std::runtime_error(fmt::format("cannot read {}: is {} a device of this pod?",
                                         description.string(), device.id));
  try {
    const auto json = parseJson({std::istreambuf_iterator<char>(file), {}});
    device.network = json.at("network").get<std::string>();
    device.backend = json.at("backend").get<std::string>();
    device.mac = MacAddress::parseOrThrow(json.at("mac").get<std::string>());
    device.vlan = json.at("vlan").get<uint16_t>();
    device.mtu = json.at("mtu").get<uint32_t>();
    device.queueSize = json.at("queueSize").get<uint32_t>();
    if (device.vlan == 0 && !json.value("vlanTrunk", "").empty())
      throw std::runtime_error(
          fmt::format("network {} has only frames with the tags {}; vdpa-ping sends untagged ones: "
                      "use a network without vlanTrunk, or with a vlan besides it",
                      device.network, json.at("vlanTrunk").get<std::string>()));
  } catch (const nlohmann::json::exception& error) {
    throw std::runtime_error(fmt::format("{}: {}", description.string(), error.what()));
  }
  device.socket = folder / "vhost.sock";
  if (std::error_code error; !fs::exists(device.socket, error))
    throw std::runtime_error(fmt::format(
        "{} has no socket: vdpa-ping is for resources with attach: vhost-user", device.id));
  if (device.mtu == 0) device.mtu = 1500;  // not known: that of every Ethernet
  return device;
}

guest::GuestOptions driverOptions(const PodDevice& device) {
  guest::GuestOptions options;
  options.ringSize = device.backend == "software"
                         ? kSwitchRing
                         : std::bit_floor(std::clamp(device.queueSize, 2u, kSwitchRing));
  options.transmitBytes = std::max(kEthernetHeader + device.mtu, kShortestFrame);
  options.receiveBytes = virtqueue::kHeaderSize + options.transmitBytes + kVlanTag;
  return options;
}

}  // namespace vdpa::ping
