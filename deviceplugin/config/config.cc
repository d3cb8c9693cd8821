// The schema of the configuration. ../README.md describes the keys.
#include "deviceplugin/config/config.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <system_error>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/naming.h"
#include "common/number_list.h"
#include "common/port_policy.h"
#include "common/uplink_config.h"
#include "common/virtio_features.h"
#include "deviceplugin/config/selector.h"
#include "deviceplugin/config/yaml_map.h"

namespace vdpa::plugin {
namespace {

constexpr size_t kMaxFile = 64 << 10;  // bytes; far more than a real configuration needs
constexpr size_t kMaxResources = 64;

bool hasUnprintable(const std::string& text) {
  return std::any_of(text.begin(), text.end(),
                     [](unsigned char c) { return c <= ' ' || c == 0x7f; });
}

constexpr const char* kNameRule =
    "lower-case letters, digits, '-', '_' and '.', at most 63, ending in a letter or digit";

SocketConfig parseSocket(const YAML::Node& node, const std::string& file) {
  const YamlMap map(node, file, "socket", {"uid", "gid", "mode", "selinuxLabel"});
  SocketConfig socket;
  socket.uid = map.number("uid", 0, UINT32_MAX - 1).value_or(0);
  socket.gid = map.number("gid", 0, UINT32_MAX - 1).value_or(0);
  const char* expected = "permission bits as a string of octal digits, such as \"0666\"";
  if (const auto mode = map.text("mode", expected)) {
    if (mode->empty() || mode->size() > 4 ||
        mode->find_first_not_of("01234567") != std::string::npos ||
        std::stoul(*mode, nullptr, 8) > 0777)
      map.fail(map.get("mode"), fmt::format("mode is '{}'", mode->substr(0, 80)), expected);
    socket.mode = static_cast<uint32_t>(std::stoul(*mode, nullptr, 8));
  }
  const char* label = "an SELinux label such as system_u:object_r:container_file_t:s0";
  socket.selinuxLabel = map.text("selinuxLabel", label).value_or("");
  if (hasUnprintable(socket.selinuxLabel) || socket.selinuxLabel.size() > 255)
    map.fail(map.get("selinuxLabel"), "selinuxLabel has white space or is too long", label);
  return socket;
}

UplinkConfig parseUplink(const YamlMap& software, const std::string& file) {
  const YAML::Node node = software.get("uplink");
  if (!node.IsDefined() || (node.IsScalar() && node.Scalar() == "none")) return {};
  const char* expected = "{netdev: NAME}, {pci: ADDRESS} or none";
  if (!node.IsMap()) software.fail(node, "uplink is not a map", expected);
  const YamlMap map(node, file, "uplink", {"netdev", "xdp", "pci"});
  UplinkConfig uplink;
  const char* address = "a PCI address such as \"0000:65:00.0\"";
  if (const auto pci = map.text("pci", address)) {
    if (!isPciAddress(*pci))
      map.fail(map.get("pci"), fmt::format("pci is '{}'", pci->substr(0, 80)), address);
    for (const char* key : {"netdev", "xdp"})
      if (map.get(key).IsDefined())
        map.fail(map.get(key), fmt::format("uplink has both pci and {}", key), expected);
    uplink.pci = *pci;
    return uplink;
  }
  map.require("netdev", expected);
  uplink.netdev = *map.text("netdev", "the name of a netdev");
  const auto& netdev = uplink.netdev;
  if (netdev.empty() || netdev.size() > 15 || netdev == "." || netdev == ".." ||
      netdev.find_first_of("/:,") != std::string::npos || hasUnprintable(netdev))
    map.fail(map.get("netdev"), fmt::format("netdev is '{}'", netdev.substr(0, 80)),
             "the name of a netdev, 1 to 15 bytes without '/', ':', ',' or white space");
  uplink.xdp = map.flag("xdp").value_or(false);
  return uplink;
}

SoftwareConfig parseSoftware(const YAML::Node& node, const std::string& file) {
  const YamlMap map(node, file, "software",
                    {"ports", "queuePairs", "mtu", "uplink", "cores", "offloads", "stormLimit"});
  SoftwareConfig software;
  map.require("ports", "the number of ports, 1 to 4096");
  software.ports = *map.number("ports", 1, 4096);
  software.queuePairs = map.number("queuePairs", 1, 16).value_or(software.queuePairs);
  software.mtu = map.number("mtu", 68, 9000).value_or(software.mtu);
  software.uplink = parseUplink(map, file);
  const char* expected = "a CPU list such as \"2\" or \"2-3,6\"";
  software.cores = map.text("cores", expected).value_or("");
  if (!software.cores.empty() && !parseNumberList(software.cores))
    map.fail(map.get("cores"), fmt::format("cores is '{}'", software.cores.substr(0, 80)),
             expected);
  software.policy.offloads = map.flag("offloads").value_or(software.policy.offloads);
  software.policy.stormLimit =
      map.number("stormLimit", 0, kMaxStormLimit).value_or(software.policy.stormLimit);
  return software;
}

uint64_t parseFeatures(const YamlMap& vdpa) {
  uint64_t features = 0;
  for (const auto& word : vdpa.list("features")) {
    const auto bit = word.IsScalar() ? parseFeature(word.Scalar()) : std::nullopt;
    if (!bit)
      vdpa.fail(word, fmt::format("features has {}", YamlMap::shown(word)),
                fmt::format("a feature as `vdpa mgmtdev show` names it: {}", allFeatureNames()));
    features |= *bit;
  }
  return features;
}

VdpaConfig parseVdpa(const YAML::Node& node, const std::string& file) {
  const YamlMap map(node, file, "vdpa", {"queuePairs", "mtu", "features"});
  VdpaConfig vdpa;
  vdpa.queuePairs = map.number("queuePairs", 1, 256).value_or(0);
  vdpa.mtu = map.number("mtu", 68, 65535).value_or(0);
  vdpa.features = parseFeatures(map);
  if (vdpa.features == 0) return vdpa;
  const auto need = [&](bool asked, const char* key, const char* what, uint64_t features) {
    if (const uint64_t missing = features & ~vdpa.features; asked && missing != 0)
      map.fail(map.get(key),
               fmt::format("{} needs {}, which features lacks", what, featureNames(missing)),
               "features with it, or no features");
  };
  need(vdpa.queuePairs > 1, "queuePairs", "queuePairs", kFeatureControlQueue | kFeatureMultiqueue);
  need(vdpa.features & kFeatureMultiqueue, "features", "MQ", kFeatureControlQueue);
  need(vdpa.mtu != 0, "mtu", "mtu", kFeatureMtu);
  return vdpa;
}

std::string parseDevargs(const YAML::Node& node, const std::string& file) {
  const YamlMap map(node, file, "dpdk", {"devargs"});
  const char* expected = "KEY=VALUE pairs with commas, such as sw-live-migration=1";
  map.require("devargs", expected);
  const std::string devargs = *map.text("devargs", expected);
  if (devargs.empty() || devargs.size() > 500 || hasUnprintable(devargs))
    map.fail(map.get("devargs"), fmt::format("devargs is '{}'", devargs.substr(0, 80)), expected);
  return devargs;
}

// Refuses selectors for more queue pairs than the devices are made with.
void refuseTooFewPairs(const YamlMap& map, const ResourceConfig& resource) {
  const unsigned pairs = resource.vdpa.pairs();
  const YAML::Node selectors = map.get("devices");
  for (size_t i = 0; i < resource.devices.size(); ++i)
    if (const unsigned least = resource.devices[i].minQueuePairs; pairs != 0 && least > pairs)
      map.fail(selectors[i]["minQueuePairs"],
               fmt::format("minQueuePairs is {}, but vdpa makes devices of {} queue pair{}{}",
                           least, pairs, pairs == 1 ? "" : "s",
                           resource.vdpa.queuePairs == 0 ? " (its features lack MQ)" : ""),
               fmt::format("at most {}, or more in vdpa", pairs));
}

// Refuses keys that are valid on their own but can't be combined.
void refuseContradictions(const YamlMap& map, const ResourceConfig& resource) {
  const bool ports = resource.software.has_value(), hardware = !resource.devices.empty();
  if (!ports && !hardware)
    map.require("software", "software: {ports: N}, or devices: a list of selectors");
  const auto refuse = [&](const char* key, const std::string& problem, const char* expected) {
    map.fail(map.get(key), problem, expected);
  };
  if (resource.backend == BackendChoice::software && hardware)
    refuse("devices", "devices cannot be combined with backend: software",
           "backend auto, kernel or dpdk");
  if (ports &&
      (resource.backend == BackendChoice::kernel || resource.backend == BackendChoice::dpdk))
    refuse("software", "software cannot be combined with a hardware backend",
           "backend auto or software");
  if (resource.backend == BackendChoice::software && !ports) map.require("software", "{ports: N}");
  if (!hardware)
    for (const char* key : {"provision", "linkHealth", "allocation", "dpdk", "vdpa"})
      if (map.get(key).IsDefined())
        refuse(key, fmt::format("{} is set without devices", key), "devices: a list of selectors");
  if (map.get("vdpa").IsDefined() && !resource.provision)
    refuse("vdpa", "vdpa is set without provision", "provision: vdpa as well");
  if (resource.attach != Attach::vhostUser && ports)
    refuse("attach", fmt::format("attach is '{}' with software", nameOf(resource.attach)),
           "vhost-user: a software port is a socket");
  if (resource.backend == BackendChoice::dpdk &&
      (resource.attach != Attach::vhostUser || resource.provision))
    refuse("backend", "backend is 'dpdk' with attach or provision of a kernel device",
           "backend kernel or auto");
}

ResourceConfig parseResource(const YAML::Node& node, const std::string& file) {
  const YamlMap map(node, file, "resource",
                    {"name", "prefix", "backend", "attach", "devices", "provision", "topology",
                     "linkHealth", "allocation", "dpdk", "socket", "software", "vdpa"});
  ResourceConfig resource;
  map.require("name", kNameRule);
  resource.name = *map.text("name", kNameRule);
  if (!isResourceName(resource.name))
    map.fail(map.get("name"), fmt::format("name is '{}'", resource.name.substr(0, 80)), kNameRule);
  const char* prefixRule = "a DNS name with a dot, such as vdpa.io, but not one of Kubernetes' own";
  resource.prefix = map.text("prefix", prefixRule).value_or(resource.prefix);
  const bool reserved = resource.prefix == "kubernetes.io" ||
                        resource.prefix.ends_with(".kubernetes.io") ||
                        resource.prefix.starts_with("requests.");
  if (!isResourcePrefix(resource.prefix) || reserved)
    map.fail(map.get("prefix"), fmt::format("prefix is '{}'", resource.prefix.substr(0, 80)),
             prefixRule);
  resource.backend =
      BackendChoice(map.word("backend", {"auto", "kernel", "dpdk", "software"}).value_or(0));
  resource.attach =
      Attach(map.word("attach", {"vhost-user", "vhost-vdpa", "virtio-vdpa"}).value_or(0));
  for (const auto& entry : map.list("devices"))
    resource.devices.push_back(parseSelector(entry, file));
  resource.provision = map.word("provision", {"none", "vdpa"}).value_or(0) == 1;
  resource.topology = map.flag("topology").value_or(true);
  resource.linkHealth = map.flag("linkHealth").value_or(true);
  resource.allocation = AllocationOrder(map.word("allocation", {"spread", "pack"}).value_or(0));
  if (const auto vdpa = map.get("vdpa"); vdpa.IsDefined()) resource.vdpa = parseVdpa(vdpa, file);
  if (const auto dpdk = map.get("dpdk"); dpdk.IsDefined())
    resource.devargs = parseDevargs(dpdk, file);
  if (const auto socket = map.get("socket"); socket.IsDefined())
    resource.socket = parseSocket(socket, file);
  if (const auto software = map.get("software"); software.IsDefined())
    resource.software = parseSoftware(software, file);
  refuseContradictions(map, resource);
  refuseTooFewPairs(map, resource);
  return resource;
}

// Refuses names that pods would see twice.
void refuseSharedNames(const Config& config, const YAML::Node& list, const YamlMap& top) {
  std::map<std::string, std::string> byName, byVariable;
  for (size_t i = 0; i < config.resources.size(); ++i) {
    const auto& resource = config.resources[i];
    const auto refuse = [&](std::map<std::string, std::string>& taken, const std::string& key,
                            const std::string& what) {
      const auto [other, fresh] = taken.emplace(key, resource.fullName());
      if (!fresh)
        top.fail(list[i],
                 fmt::format("{} and an earlier {} would share {}", resource.fullName(),
                             other->second, what),
                 "another name");
    };
    refuse(byVariable, variableName(resource.fullName()),
           "the variable " + variableName(resource.fullName()));
    refuse(byVariable, variableName(resource.fullName()) + "_SOCKETS",
           "the variable " + variableName(resource.fullName()) + "_SOCKETS");
    if (!resource.software) continue;
    refuse(byName, resource.name, "the device ID " + softwareDeviceId(resource.name, 0));
  }
}

// Refuses uplinks that take all of a device, for more than one switch: packet sockets alone share.
void refuseSharedUplinks(const Config& config, const YAML::Node& list, const YamlMap& top) {
  std::map<std::string, const ResourceConfig*> byDevice;
  for (size_t i = 0; i < config.resources.size(); ++i) {
    const auto& resource = config.resources[i];
    if (!resource.software || resource.software->uplink.empty()) continue;
    const UplinkConfig& uplink = resource.software->uplink;
    const auto [other, fresh] =
        byDevice.emplace(uplink.netdev.empty() ? uplink.pci : uplink.netdev, &resource);
    if (!fresh && (uplink.netdev.empty() || uplink.xdp || other->second->software->uplink.xdp))
      top.fail(list[i]["software"]["uplink"],
               fmt::format("{} and an earlier {} would share the uplink {}", resource.fullName(),
                           other->second->fullName(), other->first),
               uplink.netdev.empty() ? "another function" : "another netdev, or none with xdp");
  }
}

}  // namespace

Config parseConfig(const std::string& text, const std::string& file) {
  if (text.size() > kMaxFile)
    throw ConfigError(fmt::format("{}:1:1: the file has {} bytes; expected at most {}", file,
                                  text.size(), kMaxFile));
  try {
    const auto documents = YAML::LoadAll(text);
    if (documents.size() != 1 || documents[0].IsNull())
      throw ConfigError(
          fmt::format("{}:1:1: the file holds {} YAML documents; expected one, with 'resources'",
                      file, documents.size() == 1 ? 0 : documents.size()));
    const YamlMap top(documents[0], file, "the file", {"resources"});
    const YAML::Node list = top.require("resources", "a list of resources");
    const std::string expected = fmt::format("a list of 1 to {} resources", kMaxResources);
    if (!list.IsSequence() || list.size() == 0 || list.size() > kMaxResources)
      top.fail(list,
               list.IsSequence() ? fmt::format("resources has {} entries", list.size())
                                 : "resources is not a list",
               expected);
    Config config;
    for (const auto& entry : list) config.resources.push_back(parseResource(entry, file));
    refuseSharedNames(config, list, top);
    refuseSharedUplinks(config, list, top);
    return config;
  } catch (const YAML::Exception& error) {
    throw ConfigError(fmt::format("{}: {}; expected YAML", placeOf(file, error.mark), error.msg));
  }
}

Config loadConfig(const std::string& file) {
  try {
    return parseConfig(readFile(file), file);
  } catch (const std::system_error& error) {
    throw ConfigError(error.what());
  }
}

}  // namespace vdpa::plugin
