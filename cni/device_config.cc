// What a network asks of its device: the keys people know from sriov-cni, and where the device ID
// and the MAC come from.
#include <algorithm>
#include <regex>

#include "cni/error.h"
#include "cni/json_keys.h"
#include "cni/network_config.h"

namespace vdpa::cni {
namespace {

using nlohmann::json;

constexpr const char* kNoDevice =
    "no device ID was given for this attachment. Check that the NetworkAttachmentDefinition has "
    "the annotation "
    "k8s.v1.cni.cncf.io/resourceName, that a container of the pod (not only an init container) "
    "requests that resource, "
    "and that the pod has at least as many devices as attachments";

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// One of several words, in any case; empty if the key is absent.
std::string wordAt(const json& object, const char* key, std::initializer_list<const char*> words) {
  const std::string word = lower(stringAt(object, key));
  if (word.empty()) return word;
  if (std::find(words.begin(), words.end(), word) == words.end())
    throw Error(Code::invalidConfig, fmt::format("{} '{}': expected {}", key, word,
                                                 fmt::join(words.begin(), words.end(), ", ")));
  return word;
}

std::optional<bool> switchAt(const json& object, const char* key) {
  const std::string word = wordAt(object, key, {"on", "off"});
  if (word.empty()) return std::nullopt;
  return word == "on";
}

std::string findMac(const NetworkConfig& network, const Environment& environment) {
  const auto arg = environment.args.find("MAC");
  const json args = objectAt(objectAt(network.json, "args"), "cni");
  const std::pair<const char*, std::string> sources[] = {
      {"runtimeConfig.mac", stringAt(objectAt(network.json, "runtimeConfig"), "mac")},
      {"CNI_ARGS MAC", arg == environment.args.end() ? "" : arg->second},
      {"args.cni.mac", stringAt(args, "mac")},
      {"mac", stringAt(network.json, "mac")},
  };
  static const std::regex form("([0-9a-f]{2}:){5}[0-9a-f]{2}");
  for (const auto& [source, value] : sources) {
    if (value.empty()) continue;
    const std::string mac = lower(value);
    if (!std::regex_match(mac, form) || mac == "00:00:00:00:00:00" ||
        (std::stoi(mac.substr(0, 2), nullptr, 16) & 1))
      throw Error(Code::invalidConfig,
                  fmt::format("{} '{}': expected a unicast MAC address such as 02:00:00:00:00:01",
                              source, value));
    return mac;
  }
  return "";
}

std::string findDeviceId(const NetworkConfig& network) {
  const json runtime = objectAt(network.json, "runtimeConfig");
  const std::string top = stringAt(network.json, "deviceID");
  const std::string run = stringAt(runtime, "deviceID");
  if (!top.empty() && !run.empty() && top != run)
    throw Error(Code::invalidConfig,
                fmt::format("deviceID '{}' and runtimeConfig.deviceID '{}' differ", top, run));
  const std::string id = !top.empty()   ? top
                         : !run.empty() ? run
                                        : stringAt(network.json, "pciBusID");
  if (id.empty()) throw Error(Code::invalidConfig, kNoDevice);
  return id;
}

}  // namespace

DeviceConfig parseDeviceConfig(const NetworkConfig& network, const Environment& environment) {
  const json& object = network.json;
  DeviceConfig device;
  device.vlan = numberAt(object, "vlan", 0, 4094);
  device.vlanQos = numberAt(object, "vlanQoS", 0, 7);
  device.vlanProto = wordAt(object, "vlanProto", {"802.1q", "802.1ad"});
  const bool tagged = device.vlan.value_or(0) != 0;
  if (!tagged && device.vlanQos.value_or(0) != 0)
    throw Error(Code::invalidConfig,
                fmt::format("vlanQoS {} needs a vlan that is not 0", *device.vlanQos));
  if (!tagged && device.vlanProto == "802.1ad")
    throw Error(Code::invalidConfig, "vlanProto 802.1ad needs a vlan that is not 0");
  device.spoofCheck = switchAt(object, "spoofchk");
  device.trust = switchAt(object, "trust");
  device.linkState = wordAt(object, "link_state", {"auto", "enable", "disable"});
  device.minTxRate = numberAt(object, "min_tx_rate", 0, 1000000);
  device.maxTxRate = numberAt(object, "max_tx_rate", 0, 1000000);
  if (device.minTxRate.value_or(0) > device.maxTxRate.value_or(UINT32_MAX) &&
      device.maxTxRate.value_or(0) != 0)
    throw Error(Code::invalidConfig, fmt::format("min_tx_rate {} is above max_tx_rate {}",
                                                 *device.minTxRate, *device.maxTxRate));
  device.mtu = numberAt(object, "mtu", 68, 65535).value_or(0);
  device.mac = findMac(network, environment);
  device.deviceId = findDeviceId(network);
  return device;
}

}  // namespace vdpa::cni
