#include "deviceplugin/ctl/lint/network.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "cni/device_config.h"
#include "cni/environment.h"
#include "cni/error.h"
#include "cni/json_object.h"
#include "cni/network_config.h"
#include "common/json.h"
#include "common/naming.h"
#include "deviceplugin/ctl/lint/manifest.h"
#include "deviceplugin/ctl/lint/problem.h"

namespace vdpa::ctl {
namespace {

using nlohmann::json;

constexpr const char* kResourceName = "k8s.v1.cni.cncf.io/resourceName";
// Of a list of plugins, by the CNI specification 1.1.0.
constexpr std::string_view kListKeys[] = {"cniVersion",   "cniVersions", "name",
                                          "disableCheck", "disableGC",   "loadOnlyInlinedPlugins",
                                          "plugins"};

// A JSON text inside a file, for the lines of its keys.
class Embedded {
 public:
  Embedded(const Object& object, const YAML::Node& node)
      : file_(object.file), text_(node.Scalar()) {
    const YAML::Mark mark = node.Mark();
    first_ = mark.line < 0 ? 1 : static_cast<unsigned>(mark.line) + 1;
    // Only a literal block keeps the file's lines; they begin after the indicator's.
    linesKept_ = mark.pos >= 0 && static_cast<size_t>(mark.pos) < object.text->size() &&
                 (*object.text)[static_cast<size_t>(mark.pos)] == '|';
    if (linesKept_) ++first_;
  }
  // All of the file.
  explicit Embedded(const Object& object)
      : file_(object.file), text_(*object.text), linesKept_(true) {}

  const std::string& text() const { return text_; }

  Problem problem(unsigned line, const std::string& message) const {  // from 1
    return {file_, linesKept_ ? first_ + line - 1 : first_, message};
  }
  Problem problemAtKey(std::string_view key, const std::string& message) const {
    const std::string quoted = fmt::format("\"{}\"", key);
    size_t found = text_.find(quoted);
    while (found != std::string::npos && !isKey(found + quoted.size()))
      found = text_.find(quoted, found + 1);
    const auto end = text_.begin() + static_cast<long>(found == std::string::npos ? 0 : found);
    return problem(1 + static_cast<unsigned>(std::count(text_.begin(), end, '\n')), message);
  }

 private:
  bool isKey(size_t end) const {
    const size_t next = text_.find_first_not_of(" \t\r\n", end);
    return next != std::string::npos && text_[next] == ':';
  }

  std::string file_;
  std::string text_;
  unsigned first_ = 1;
  bool linesKept_ = false;
};

// Without case and separators: link_state and linkState are confused easily.
std::string folded(std::string_view key) {
  std::string text;
  for (const char c : key)
    if (c != '_' && c != '-')
      text += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

template <typename Keys>
void refuseUnknown(const json& object, const Keys& keys, const char* what, const Embedded& place,
                   std::vector<Problem>& problems) {
  for (const auto& member : object.items()) {
    const std::string& key = member.key();
    if (std::find(std::begin(keys), std::end(keys), key) != std::end(keys)) continue;
    const auto meant = std::find_if(std::begin(keys), std::end(keys), [&](std::string_view known) {
      return folded(known) == folded(key);
    });
    const std::string remedy = meant != std::end(keys)
                                   ? fmt::format("did you mean '{}'?", *meant)
                                   : fmt::format("expected one of {}", fmt::join(keys, ", "));
    problems.push_back(
        place.problemAtKey(key, fmt::format("unknown key '{}' in {}, which would be ignored; {}",
                                            cni::excerpt(key, 80), what, remedy)));
  }
}

// The key that a message of the parser begins with: "vlan: expected ...", "ipam.type 'x': ...".
std::string_view keyOf(std::string_view message) {
  std::string_view found;
  for (const auto key : cni::networkKeys())
    if (message.starts_with(key) && key.size() > found.size()) found = key;
  return found;
}

Problem syntaxProblem(const cni::Error& error, const Embedded& place) {
  // "[json.exception.parse_error.101] parse error at line 3, column 5: ..."
  constexpr std::string_view kLine = "at line ";
  const std::string& details = error.details();
  unsigned line = 1;
  if (const size_t at = details.find(kLine); at != std::string::npos)
    std::from_chars(details.data() + at + kLine.size(), details.data() + details.size(), line);
  const size_t colon = details.find(": ");
  return place.problem(
      line, fmt::format("{}{}", error.what(),
                        colon == std::string::npos ? "" : ": " + details.substr(colon + 2)));
}

bool has(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && !found->is_null();
}

// With a device ID, and with the name of its object if it has none: Multus adds both.
std::string completed(json plugin, const json& list, const std::string& name) {
  for (const char* key : {"cniVersion", "name"})
    if (!has(plugin, key) && has(list, key)) plugin[key] = list[key];
  if (!has(plugin, "name") && !name.empty()) plugin["name"] = name;
  if (!has(plugin, "deviceID") && !has(plugin, "pciBusID")) plugin["deviceID"] = "0000:00:00.0";
  return jsonText(plugin);
}

// vdpa's configuration in a network, as Multus passes it; empty if it has none, or a wrong one.
std::string checkConfig(const Embedded& place, const std::string& name, bool& device,
                        std::vector<Problem>& problems) {
  json config;
  try {
    config = cni::parseObject(place.text(), "the network configuration");
  } catch (const cni::Error& error) {
    problems.push_back(syntaxProblem(error, place));
    return "";
  }
  const bool list = config.contains("plugins") && config["plugins"].is_array();
  const json plugins = list ? config["plugins"] : json::array({config});
  const auto mine = std::find_if(plugins.begin(), plugins.end(), [](const json& plugin) {
    return plugin.is_object() && plugin.value("type", json()) == "vdpa";
  });
  if (mine == plugins.end()) return "";
  if (list) refuseUnknown(config, kListKeys, "a list of plugins", place, problems);
  refuseUnknown(*mine, cni::networkKeys(), "a network of type vdpa", place, problems);
  for (const char* key : {"deviceID", "pciBusID"}) device = device || has(*mine, key);
  std::string text = completed(*mine, list ? config : json::object(), name);
  try {
    parseAsMultusDoes(text, "");
    return text;
  } catch (const cni::Error& error) {
    problems.push_back(place.problemAtKey(keyOf(error.what()), error.what()));
    return "";
  }
}

// A configuration without an object of Kubernetes around it, such as /etc/cni/net.d has.
bool isBare(const Object& object) {
  return object.kind.empty() && at(object.node, {"cniVersion"}).IsDefined() &&
         (at(object.node, {"type"}).IsDefined() || at(object.node, {"plugins"}).IsDefined());
}

}  // namespace

void parseAsMultusDoes(const std::string& config, const std::string& runtimeConfig) {
  json given = cni::parseObject(config, "the network configuration");
  if (!runtimeConfig.empty())
    given["runtimeConfig"] = cni::parseObject(runtimeConfig, "runtimeConfig");
  cni::Environment environment;
  environment.command = cni::Command::add;
  environment.interface = "net1";
  const auto network = cni::parseNetworkConfig(jsonText(given), environment);
  cni::parseDeviceConfig(network, environment);
}

bool isNetwork(const Object& object) {
  return object.kind == "NetworkAttachmentDefinition" || isBare(object);
}

Network checkNetwork(const Object& object, std::vector<Problem>& problems) {
  const YAML::Node& node = object.node;
  Network network;
  bool device = false;
  if (isBare(object)) {
    network.config = checkConfig(Embedded(object), "", device, problems);
    return network;
  }
  network.space = textAt(node, {"metadata", "namespace"});
  network.name = textAt(node, {"metadata", "name"});
  network.resource = textAt(node, {"metadata", "annotations", kResourceName});
  const YAML::Node config = at(node, {"spec", "config"});
  if (!config.IsDefined() || config.IsNull()) return network;  // Multus finds it on the node
  if (!config.IsScalar()) {
    problems.push_back(object.problemAt(
        config,
        "spec.config is not a string: Multus expects JSON in a string; write 'config: |' "
        "and the JSON below it"));
    return network;
  }
  const size_t before = problems.size();
  const Embedded place(object, config);
  network.config = checkConfig(place, network.name, device, problems);
  if (network.config.empty() && problems.size() == before) return network;  // another plugin's

  const YAML::Node annotation = at(node, {"metadata", "annotations", kResourceName});
  const size_t slash = network.resource.find('/');
  if (!annotation.IsDefined() && !device) {
    problems.push_back(object.problemAt(
        at(node, {"metadata"}),
        fmt::format("the annotation {} is missing: without it Multus passes no device to the "
                    "plugin; expected the resource that pods request, such as vdpa.io/nic",
                    kResourceName)));
  } else if (annotation.IsDefined() &&
             (slash == std::string::npos || !isResourcePrefix(network.resource.substr(0, slash)) ||
              !isResourceName(network.resource.substr(slash + 1)))) {
    problems.push_back(object.problemAt(
        annotation, fmt::format("{} is '{}'; expected a resource, such as vdpa.io/nic",
                                kResourceName, cni::excerpt(network.resource, 80))));
    network.resource.clear();
  }
  return network;
}

}  // namespace vdpa::ctl
