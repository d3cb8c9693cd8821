#include "cni/device_config.h"

#include <fmt/format.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "cni/environment.h"
#include "cni/error.h"
#include "cni/json_object.h"
#include "cni/network_config.h"
#include "cni/network_paths.h"
#include "common/mac_address.h"
#include "common/port_settings.h"

namespace vdpa::cni {
namespace {

constexpr const char* kNoDevice =
    "no device ID was given for this attachment. Check that the NetworkAttachmentDefinition has "
    "the annotation "
    "k8s.v1.cni.cncf.io/resourceName, that a container of the pod (not only an init container) "
    "requests that resource, "
    "and that the pod has at least as many devices as attachments";

// An absent key and an empty text request nothing. JsonObject names a wrong type.
void read(const JsonObject& object, const Setting& setting, std::optional<unsigned>& value) {
  value = object.number(std::string(setting.key).c_str(), setting.low, setting.high);
}
void read(const JsonObject& object, const Setting& setting, std::optional<bool>& value) {
  static constexpr const char* kSwitch[] = {"off", "on"};
  const std::string word = object.string(std::string(setting.key).c_str());
  if (!word.empty()) value = indexOfWord(setting.key, word, kSwitch) == 1;
}
template <typename Word>
void read(const JsonObject& object, const Setting& setting, std::optional<Word>& value) {
  const std::string word = object.string(std::string(setting.key).c_str());
  if (!word.empty()) readText(setting.key, word, value.emplace());
}

// The first source counts.
std::optional<MacAddress> findMac(const JsonObject& object, const Environment& environment) {
  const auto arg = environment.args.find("MAC");
  const std::pair<const char*, std::string> sources[] = {
      {"runtimeConfig.mac", object.object("runtimeConfig").string("mac")},
      {"CNI_ARGS MAC", arg == environment.args.end() ? "" : arg->second},
      {"args.cni.mac", object.object("args").object("cni").string("mac")},
      {"mac", object.string("mac")},
  };
  for (const auto& [source, value] : sources)
    if (!value.empty()) {
      MacAddress mac;
      readText(source, value, mac);
      return mac;
    }
  return std::nullopt;
}

PortSettings requestedSettings(const JsonObject& object, const Environment& environment) {
  PortSettings settings;
  forEachSetting(
      [&](const Setting& setting, auto& value) {
        if constexpr (std::is_same_v<decltype(value), std::optional<MacAddress>&>)
          value = findMac(object, environment);
        else
          read(object, setting, value);
      },
      settings);
  const bool tagged = settings.vlan.value_or(0) != 0;
  if (!tagged && settings.vlanQos.value_or(0) != 0)
    throw std::invalid_argument(
        fmt::format("vlanQoS {} needs a vlan that is not 0", *settings.vlanQos));
  if (!tagged && settings.vlanProto == VlanProtocol::dot1ad)
    throw std::invalid_argument("vlanProto 802.1ad needs a vlan that is not 0");
  const unsigned most = settings.maxTxRate.value_or(0);
  if (most != 0 && settings.minTxRate.value_or(0) > most)
    throw std::invalid_argument(
        fmt::format("min_tx_rate {} is above max_tx_rate {}", *settings.minTxRate, most));
  checkTogether(settings);
  return settings;
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
  const JsonObject object = networkObject(network.json);
  DeviceConfig device;
  try {
    device.settings = requestedSettings(object, environment);
  } catch (const std::invalid_argument& error) {
    throw Error(Code::invalidConfig, error.what());
  }
  device.deviceId = findDeviceId(object);
  device.infoFile = parseDeviceInfo(network, environment);
  return device;
}

std::string parseDeviceInfo(const NetworkConfig& network, const Environment& environment) {
  return confineDeviceInfo(
      networkObject(network.json).object("runtimeConfig").string("CNIDeviceInfoFile"),
      environment.containerId, environment.interface);
}

}  // namespace vdpa::cni
