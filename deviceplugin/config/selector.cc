#include "deviceplugin/config/selector.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/naming.h"
#include "common/number_list.h"
#include "deviceplugin/config/yaml_map.h"

namespace vdpa::plugin {
namespace {

bool isHexId(const std::string& text) {
  return text.size() == 4 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// A name as the kernel gives to drivers, netdevs and management devices.
bool isKernelName(const std::string& text) {
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
    return c > ' ' && c < 0x7f && c != ',';
  });
}

std::vector<std::string> parseNames(const YamlMap& map, const std::string& key,
                                    bool (*valid)(const std::string&), const char* expected) {
  std::vector<std::string> names;
  for (const auto& node : map.list(key)) {
    if (!node.IsScalar() || !valid(node.Scalar()))
      map.fail(node, fmt::format("an entry of {} is {}", key, YamlMap::shown(node)), expected);
    names.push_back(node.Scalar());
  }
  return names;
}

std::vector<PfSelector> parsePfs(const YamlMap& map, const std::string& key,
                                 bool (*valid)(const std::string&), const char* expected) {
  std::vector<PfSelector> pfs;
  for (const auto& node : map.list(key)) {
    const std::string text = node.IsScalar() ? node.Scalar() : "";
    const size_t hash = std::min(text.find('#'), text.size());
    PfSelector pf{text.substr(0, hash), {}};
    bool good = valid(pf.pf);
    if (good && hash < text.size()) {
      const auto ranges = parseNumberList(std::string_view(text).substr(hash + 1));
      good = ranges.has_value();
      if (good) pf.vfs = *ranges;
    }
    if (!good)
      map.fail(node, fmt::format("an entry of {} is {}", key, YamlMap::shown(node)), expected);
    pfs.push_back(std::move(pf));
  }
  return pfs;
}

}  // namespace

bool PfSelector::contains(unsigned vf) const {
  return vfs.empty() || std::any_of(vfs.begin(), vfs.end(), [vf](const NumberRange& range) {
           return vf >= range.first && vf <= range.last;
         });
}

Selector parseSelector(const YAML::Node& node, const std::string& file) {
  const YamlMap map(node, file, "an entry of devices",
                    {"vendors", "devices", "drivers", "pciAddresses", "pfNames", "rootDevices",
                     "numaNodes", "minQueuePairs", "managementDevices"});
  if (node.size() == 0)
    map.fail(node, "an entry of devices is empty", "at least one key, or every device would match");
  Selector selector;
  const char* hex = "four lower-case hex digits in quotes, such as \"15b3\"";
  selector.vendors = parseNames(map, "vendors", isHexId, hex);
  selector.devices = parseNames(map, "devices", isHexId, hex);
  selector.drivers = parseNames(map, "drivers", isKernelName, "a driver's name, such as mlx5_core");
  const char* address = "a PCI address such as \"0000:65:00.2\"";
  selector.pciAddresses = parseNames(map, "pciAddresses", isPciAddress, address);
  selector.pfNames = parsePfs(map, "pfNames", isKernelName,
                              "a PF's netdev with or without VFs, such as \"ens1f0#0-3,7\"");
  selector.rootDevices =
      parsePfs(map, "rootDevices", isPciAddress,
               "a PF's PCI address with or without VFs, such as \"0000:65:00.0#0-3\"");
  for (const auto& entry : map.list("numaNodes")) {
    const auto number = entry.IsScalar() ? parseNumber(entry.Scalar()) : std::nullopt;
    if (!number || *number > 1023)
      map.fail(entry, fmt::format("an entry of numaNodes is {}", YamlMap::shown(entry)),
               "a NUMA node, 0 to 1023");
    selector.numaNodes.push_back(static_cast<int>(*number));
  }
  selector.minQueuePairs = map.number("minQueuePairs", 1, 128).value_or(0);
  selector.managementDevices =
      parseNames(map, "managementDevices", isKernelName,
                 "a management device as `vdpa mgmtdev show` prints it, such as vdpasim_net");
  return selector;
}

}  // namespace vdpa::plugin
