#include "cni/device_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>

#include "cni/environment.h"
#include "cni/error.h"
#include "cni/json_object.h"
#include "cni/network_config.h"
#include "cni/network_paths.h"

namespace vdpa::cni {
namespace {

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

// One of `words`, case-insensitive; empty if the key is absent.
std::string wordAt(const JsonObject& object, const char* key,
                   std::initializer_list<const char*> words) {
  const std::string word = lower(object.string(key));
  if (word.empty()) return word;
  if (std::find(words.begin(), words.end(), word) == words.end())
    throw Error(Code::invalidConfig, fmt::format("{} '{}': expected {}", key, excerpt(word, 40),
                                                 fmt::join(words.begin(), words.end(), ", ")));
  return word;
}

std::optional<bool> switchAt(const JsonObject& object, const char* key) {
  const std::string word = wordAt(object, key, {"on", "off"});
  if (word.empty()) return std::nullopt;
  return word == "on";
}

// In lower case: aa:bb:cc:dd:ee:ff.
bool isUnicastMac(const std::string& mac) {
  if (mac.size() != 17 || mac == "00:00:00:00:00:00") return false;
  for (size_t i = 0; i < mac.size(); ++i)
    if (i % 3 == 2 ? mac[i] != ':' : std::isxdigit(static_cast<unsigned char>(mac[i])) == 0)
      return false;
  return (std::stoi(mac.substr(0, 2), nullptr, 16) & 1) == 0;
}

std::string findMac(const JsonObject& object, const Environment& environment) {
  const auto arg = environment.args.find("MAC");
  const std::pair<const char*, std::string> sources[] = {
      {"runtimeConfig.mac", object.object("runtimeConfig").string("mac")},
      {"CNI_ARGS MAC", arg == environment.args.end() ? "" : arg->second},
      {"args.cni.mac", object.object("args").object("cni").string("mac")},
      {"mac", object.string("mac")},
  };
  for (const auto& [source, value] : sources) {
    if (value.empty()) continue;
    const std::string mac = lower(value);
    if (!isUnicastMac(mac))
      throw Error(Code::invalidConfig,
                  fmt::format("{} '{}': expected a unicast MAC address such as 02:00:00:00:00:01",
                              source, excerpt(value, 40)));
    return mac;
  }
  return "";
}

// Multus writes the same ID to several places; if two differ, either could be meant.
std::string findDeviceId(const JsonObject& object) {
  const JsonObject runtime = object.object("runtimeConfig");
  std::string id, place;
  for (const auto& [from, key] :
       {std::pair{&object, "deviceID"}, std::pair{&runtime, "deviceID"},
        std::pair{&object, "pciBusID"}, std::pair{&runtime, "pciBusID"}}) {
    const std::string found = from->string(key);
    if (found.empty()) continue;
    if (id.empty()) {
      id = found;
      place = from->path(key);
    } else if (id != found) {
      throw Error(Code::invalidConfig,
                  fmt::format("{} '{}' and {} '{}' differ", place, excerpt(id, 40), from->path(key),
                              excerpt(found, 40)));
    }
  }
  if (id.empty()) throw Error(Code::invalidConfig, kNoDevice);
  return id;
}

}  // namespace

DeviceConfig parseDeviceConfig(const NetworkConfig& network, const Environment& environment) {
  const JsonObject object(network.json);
  DeviceConfig device;
  device.vlan = object.number("vlan", 0, 4094);
  device.vlanQos = object.number("vlanQoS", 0, 7);
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
  device.minTxRate = object.number("min_tx_rate", 0, 1000000);
  device.maxTxRate = object.number("max_tx_rate", 0, 1000000);
  if (device.minTxRate.value_or(0) > device.maxTxRate.value_or(UINT32_MAX) &&
      device.maxTxRate.value_or(0) != 0)
    throw Error(Code::invalidConfig, fmt::format("min_tx_rate {} is above max_tx_rate {}",
                                                 *device.minTxRate, *device.maxTxRate));
  device.mtu = object.number("mtu", 68, 65535).value_or(0);
  device.mac = findMac(object, environment);
  device.deviceId = findDeviceId(object);
  device.infoFile = parseDeviceInfo(network, environment);
  return device;
}

std::string parseDeviceInfo(const NetworkConfig& network, const Environment& environment) {
  return confineDeviceInfo(
      JsonObject(network.json).object("runtimeConfig").string("CNIDeviceInfoFile"),
      environment.containerId, environment.interface);
}

}  // namespace vdpa::cni
