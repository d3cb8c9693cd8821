#include "deviceplugin/datapath/records/owner_record.h"

#include <fmt/core.h>

#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "common/backend.h"
#include "common/json.h"
#include "common/mac_address.h"
#include "common/port_policy.h"
#include "common/port_settings.h"
#include "common/uplink_config.h"
#include "common/vlan_ranges.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/model/pod_addresses.h"
#include "deviceplugin/datapath/model/vf_values.h"

namespace vdpa::datapath {
namespace {

// A record has the lowest version whose readers understand it, so that the previous release can
// still read it after a rollback: a new key that an older reader must not ignore raises the version
// only of the records that have it. Readers ignore keys that they don't know.
constexpr int kVersion = 1;
// Has what 0.1.0 does not know and must not leave out: a kind of uplink, without which its switch
// would start, or a trunk, without which the port would be open to other pods.
constexpr int kUnknownTo010 = 2;
constexpr int kLatestVersion = kUnknownTo010;

int versionOf(const OwnerRecord& record) {
  const UplinkConfig& uplink = record.software.uplink;
  const bool trunk = record.attachment.port.vlanTrunk.value_or(VlanRanges()) != VlanRanges();
  return uplink.xdp || !uplink.pci.empty() || trunk ? kUnknownTo010 : kVersion;
}

const char* nameOf(Phase phase) {
  switch (phase) {
    case Phase::attaching:
      return "attaching";
    case Phase::attached:
      return "attached";
    case Phase::detaching:
      return "detaching";
  }
  return "";
}

const char* nameOf(VfPart part) {
  switch (part) {
    case VfPart::mac:
      return "mac";
    case VfPart::vlan:
      return "vlan";
    case VfPart::rate:
      return "rate";
    case VfPart::spoofCheck:
      return "spoofCheck";
    case VfPart::trust:
      return "trust";
    case VfPart::linkState:
      return "linkState";
  }
  return "";
}

std::string textOrNone(const MacAddress& mac) {
  return mac.isZero() ? "" : mac.text();
}

// A setting's value, without one the default.
template <typename Value>
nlohmann::json settingJson(const std::optional<Value>& value) {
  if constexpr (std::is_same_v<Value, MacAddress>)
    return textOf(value, "");
  else if constexpr (Text<Value>)
    return textOf(value.value_or(Value()));
  else
    return value.value_or(Value());
}

template <typename Value>
void readSetting(const Setting& setting, const nlohmann::json& json, std::optional<Value>& value) {
  if constexpr (std::is_same_v<Value, MacAddress>) {
    const auto text = json.get<std::string>();
    if (!text.empty()) value = MacAddress::parseOrThrow(text);  // a device may report any
  } else if constexpr (Text<Value>) {
    readText(setting.key, json.get<std::string>(), value.emplace());
  } else {
    value = json.get<Value>();
  }
}

// Those of later releases than 0.1.0 only where they are not the default.
nlohmann::json toJson(const PortSettings& port) {
  auto json = nlohmann::json::object();
  forEachSetting(
      [&]<typename Value>(const Setting& setting, const std::optional<Value>& value) {
        if (setting.since010 || value.value_or(Value()) != Value())
          json[setting.record] = settingJson(value);
      },
      port);
  return json;
}

// The key of a setting of a later release than 0.1.0 may be missing.
bool mayLack(const Setting& setting, const nlohmann::json& json) {
  return !setting.since010 && !json.contains(setting.record);
}

PortSettings portFromJson(const nlohmann::json& json) {
  PortSettings port = defaultSettings();
  forEachSetting(
      [&](const Setting& setting, auto& value) {
        if (!mayLack(setting, json)) readSetting(setting, json.at(setting.record), value);
      },
      port);
  if (port.mtu == 0u) port.mtu.reset();  // written before the device reported it
  return port;
}

// Whether it is a setting of a VF.
bool isOfVf(const Setting& setting) {
  return setting.record != "mtu" && !setting.switchOnly;
}

// spoofCheck and trust of a VF: -1 if its driver doesn't report it.
constexpr int kNotReported = -1;

nlohmann::json vfToJson(const VfValues& vf) {
  auto json = nlohmann::json::object();
  forEachSetting(
      [&]<typename Value>(const Setting& setting, const std::optional<Value>& value) {
        if (!isOfVf(setting)) return;
        json[setting.record] = settingJson(value);
        if constexpr (std::is_same_v<Value, bool>)
          json[setting.record] = value ? int{*value} : kNotReported;
      },
      vf);
  return json;
}

VfValues vfFromJson(const nlohmann::json& json) {
  VfValues vf = unreportedVf();
  forEachSetting(
      [&]<typename Value>(const Setting& setting, std::optional<Value>& value) {
        if (!isOfVf(setting) || mayLack(setting, json)) return;
        if constexpr (std::is_same_v<Value, bool>) {
          const int reported = json.at(setting.record).get<int>();
          if (reported != kNotReported) value = reported != 0;
        } else {
          readSetting(setting, json.at(setting.record), value);
        }
      },
      vf);
  return vf;
}

nlohmann::json toJson(const FoundHardware& found) {
  auto changes = nlohmann::json::array();
  for (const VfPart part : found.vfChanges) changes.push_back(nameOf(part));
  return {
      {"vdpaMac", found.vdpaMac ? nlohmann::json(textOrNone(*found.vdpaMac)) : nlohmann::json()},
      {"vfChanges", changes},
      {"vf", vfToJson(found.vf)}};
}

template <typename Enum>
Enum fromName(const std::string& name, std::initializer_list<Enum> values) {
  for (const Enum value : values)
    if (name == nameOf(value)) return value;
  throw std::runtime_error(fmt::format("unknown word '{}'", name));
}

template <typename Value>
nlohmann::json toJson(const std::optional<Value>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json();
}

template <typename Value>
void read(const nlohmann::json& json, std::optional<Value>& value) {
  if (!json.is_null()) value = json.get<Value>();
}

nlohmann::json toJson(const PodRoute& route) {
  return {{"destination", route.destination},
          {"gateway", route.gateway},
          {"mtu", route.mtu},
          {"advmss", route.advmss},
          {"priority", route.priority},
          {"table", toJson(route.table)},
          {"scope", toJson(route.scope)}};
}

PodRoute routeFromJson(const nlohmann::json& json) {
  PodRoute route;
  json.at("destination").get_to(route.destination);
  json.at("gateway").get_to(route.gateway);
  json.at("mtu").get_to(route.mtu);
  json.at("advmss").get_to(route.advmss);
  json.at("priority").get_to(route.priority);
  read(json.at("table"), route.table);
  read(json.at("scope"), route.scope);
  return route;
}

FoundHardware foundFromJson(const nlohmann::json& json) {
  FoundHardware found;
  if (const auto& mac = json.at("vdpaMac"); !mac.is_null()) {
    const auto text = mac.get<std::string>();
    found.vdpaMac = text.empty() ? MacAddress() : MacAddress::parseOrThrow(text);
  }
  for (const auto& part : json.at("vfChanges"))
    found.vfChanges.push_back(
        fromName<VfPart>(part, {VfPart::mac, VfPart::vlan, VfPart::rate, VfPart::spoofCheck,
                                VfPart::trust, VfPart::linkState}));
  found.vf = vfFromJson(json.at("vf"));
  return found;
}

}  // namespace

nlohmann::json toJson(const OwnerRecord& record) {
  const Attachment& attachment = record.attachment;
  const Owner& owner = attachment.owner;
  auto routes = nlohmann::json::array();
  for (const auto& route : record.routes) routes.push_back(toJson(route));
  const UplinkConfig& uplink = record.software.uplink;
  nlohmann::json json = {{"version", versionOf(record)},
                         {"bootId", record.bootId},
                         {"phase", nameOf(record.phase)},
                         {"device", attachment.deviceId},
                         {"resource", attachment.resource},
                         {"created", attachment.created},
                         {"owner",
                          {{"container", owner.containerId},
                           {"interface", owner.interface},
                           {"netns", owner.netns},
                           {"netnsDevice", record.netns.device},
                           {"netnsInode", record.netns.inode},
                           {"network", owner.network},
                           {"podNamespace", owner.podNamespace},
                           {"podName", owner.podName},
                           {"podUid", owner.podUid}}},
                         {"port", toJson(attachment.port)},
                         {"queuePairs", attachment.queuePairs},
                         {"queueSize", attachment.queueSize},
                         {"ips", attachment.ips},
                         {"routes", routes},
                         {"socket",
                          {{"uid", record.socket.uid},
                           {"gid", record.socket.gid},
                           {"mode", record.socket.mode},
                           {"selinuxLabel", record.socket.selinuxLabel}}},
                         {"switch",
                          {{"queuePairs", record.software.queuePairs},
                           {"mtu", record.software.mtu},
                           {"uplink", uplink.netdev},
                           {"cores", record.software.cores}}},
                         {"backing",  // the key's name since release 0.1.0
                          {{"backend", nameOf(record.device.backend)},
                           {"attach", nameOf(record.device.attach)},
                           {"numaNode", record.device.numaNode},
                           {"queuePairs", record.device.queuePairs},
                           {"pciAddress", record.device.pciAddress},
                           {"vdpa", record.device.vdpa},
                           {"managementDevice", record.device.managementDevice},
                           {"pciDriver", record.device.pciDriver},
                           {"provision", record.device.provision},
                           {"dpdkDriver", record.device.dpdkDriver},
                           {"devargs", record.device.devargs},
                           {"socket", attachment.socket},
                           {"netdev", record.netdev}}}};
  if (uplink.xdp) json["switch"]["uplinkXdp"] = true;
  if (!uplink.pci.empty()) json["switch"]["uplinkPci"] = uplink.pci;
  // Of later releases than 0.1.0.
  const PortPolicy standard;
  if (record.policy.offloads != standard.offloads)
    json["switch"]["offloads"] = record.policy.offloads;
  if (record.policy.stormLimit != standard.stormLimit)
    json["switch"]["stormLimit"] = record.policy.stormLimit;
  if (record.found != FoundHardware()) json["found"] = toJson(record.found);
  return json;
}

OwnerRecord ownerRecordFromJson(const nlohmann::json& json) {
  const int version = json.at("version").get<int>();
  if (version < 1 || version > kLatestVersion)
    throw std::runtime_error(fmt::format("it has version {}; this program reads versions up to {}",
                                         version, kLatestVersion));
  OwnerRecord record;
  json.at("bootId").get_to(record.bootId);
  record.phase =
      fromName<Phase>(json.at("phase"), {Phase::attaching, Phase::attached, Phase::detaching});

  Attachment& attachment = record.attachment;
  json.at("device").get_to(attachment.deviceId);
  json.at("resource").get_to(attachment.resource);
  json.at("created").get_to(attachment.created);
  json.at("queuePairs").get_to(attachment.queuePairs);
  json.at("queueSize").get_to(attachment.queueSize);
  json.at("ips").get_to(attachment.ips);

  for (const auto& route : json.at("routes")) record.routes.push_back(routeFromJson(route));
  if (json.contains("found")) record.found = foundFromJson(json.at("found"));

  const auto& owner = json.at("owner");
  owner.at("container").get_to(attachment.owner.containerId);
  owner.at("interface").get_to(attachment.owner.interface);
  owner.at("netns").get_to(attachment.owner.netns);
  owner.at("netnsDevice").get_to(record.netns.device);
  owner.at("netnsInode").get_to(record.netns.inode);
  owner.at("network").get_to(attachment.owner.network);
  owner.at("podNamespace").get_to(attachment.owner.podNamespace);
  owner.at("podName").get_to(attachment.owner.podName);
  owner.at("podUid").get_to(attachment.owner.podUid);

  attachment.port = portFromJson(json.at("port"));

  const auto& socket = json.at("socket");
  socket.at("uid").get_to(record.socket.uid);
  socket.at("gid").get_to(record.socket.gid);
  socket.at("mode").get_to(record.socket.mode);
  socket.at("selinuxLabel").get_to(record.socket.selinuxLabel);

  const auto& software = json.at("switch");
  software.at("queuePairs").get_to(record.software.queuePairs);
  software.at("mtu").get_to(record.software.mtu);
  software.at("uplink").get_to(record.software.uplink.netdev);
  record.software.uplink.xdp = software.value("uplinkXdp", false);
  record.software.uplink.pci = software.value("uplinkPci", "");
  software.at("cores").get_to(record.software.cores);
  record.policy.offloads = software.value("offloads", record.policy.offloads);
  record.policy.stormLimit = software.value("stormLimit", record.policy.stormLimit);

  const auto& backend = json.at("backing");
  DeviceConfig& device = record.device;
  device.backend = fromName<BackendKind>(
      backend.at("backend"), {BackendKind::software, BackendKind::kernel, BackendKind::dpdk});
  device.attach = fromName<Attach>(backend.at("attach"),
                                   {Attach::vhostUser, Attach::vhostVdpa, Attach::virtioVdpa});
  backend.at("numaNode").get_to(device.numaNode);
  backend.at("queuePairs").get_to(device.queuePairs);
  backend.at("pciAddress").get_to(device.pciAddress);
  backend.at("vdpa").get_to(device.vdpa);
  backend.at("managementDevice").get_to(device.managementDevice);
  backend.at("pciDriver").get_to(device.pciDriver);
  backend.at("provision").get_to(device.provision);
  backend.at("dpdkDriver").get_to(device.dpdkDriver);
  backend.at("devargs").get_to(device.devargs);
  backend.at("socket").get_to(attachment.socket);
  backend.at("netdev").get_to(record.netdev);
  return record;
}

}  // namespace vdpa::datapath
