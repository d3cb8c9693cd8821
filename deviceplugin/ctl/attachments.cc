// vdpactl attachments
#include <fmt/format.h>

#include <ctime>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "common/json.h"
#include "common/port_settings.h"
#include "common/version.h"
#include "deviceplugin/ctl/age.h"
#include "deviceplugin/ctl/client.h"
#include "deviceplugin/ctl/commands.h"
#include "deviceplugin/ctl/holders.h"
#include "deviceplugin/ctl/table.h"

namespace vdpa::ctl {
namespace {

PortSettings settingsOf(const datapath::v1::Attachment& attachment) {
  return settingsFromMessage(attachment.settings(), [](const std::string&) {
    // A word of a later datapath: shown as the default.
  });
}

// The VLAN of untagged frames and those of a trunk, "7" or "7,trunk:100-110,200".
std::string describeVlans(const PortSettings& settings) {
  std::string text = settings.vlan.value_or(0) ? textOf(settings.vlan) : "";
  if (!settings.vlanTrunk || settings.vlanTrunk->empty()) return text;
  if (!text.empty()) text += ',';
  return text + "trunk:" + textOf(*settings.vlanTrunk);
}

// The settings besides MAC and VLANs, as a network's configuration names them: the MTU, and what is
// not the default.
std::string describeSettings(const PortSettings& settings) {
  std::string text = fmt::format("mtu={}", settings.mtu.value_or(0));
  forEachSetting(
      [&]<typename Value>(const Setting& setting, const std::optional<Value>& value) {
        if (!value || *value == Value()) return;
        if (setting.key == "mac" || setting.key == "vlan" || setting.key == "vlanTrunk" ||
            setting.key == "mtu")
          return;
        if constexpr (std::is_same_v<Value, bool>)
          text += fmt::format(",{}=on", setting.key);
        else
          text += fmt::format(",{}={}", setting.key, textOf(*value));
      },
      settings);
  return text;
}

// As container runtimes and crictl show IDs.
std::string shortId(const std::string& containerId) {
  return containerId.substr(0, 12);
}

// A worker serves its pod until the pod ends, even if the datapath is updated meanwhile.
std::string stateOf(const datapath::v1::Attachment& a) {
  if (a.worker_version().empty() || a.worker_version() == programVersion()) return a.state();
  return fmt::format("{}, by vdpa-worker {}", a.state(), a.worker_version());
}

nlohmann::json toJson(const datapath::v1::Attachment& a) {
  nlohmann::json json{{"device", a.device_id()},
                      {"resource", a.resource()},
                      {"backend", a.backend()},
                      {"namespace", a.owner().pod_namespace()},
                      {"pod", a.owner().pod_name()},
                      {"container", a.owner().container_id()},
                      {"interface", a.owner().interface()},
                      {"network", a.owner().network()},
                      {"netns", a.owner().netns()},
                      {"ips", std::vector<std::string>(a.ips().begin(), a.ips().end())},
                      {"socket", a.socket()},
                      {"created", a.created()},
                      {"attached", !a.owner().container_id().empty()},
                      {"state", a.state()},
                      {"workerVersion", a.worker_version()},
                      {"outlook", a.outlook()}};
  const PortSettings settings = settingsOf(a);
  forEachSetting(
      [&]<typename Value>(const Setting& setting, const std::optional<Value>& value) {
        auto& entry = json[std::string(setting.key)];
        if constexpr (Text<Value>)
          entry = textOf(value, "");
        else
          entry = value.value_or(Value());
      },
      settings);
  return json;
}

}  // namespace

void printAttachments(const Options& options) {
  const auto list = DatapathClient(options.datapathSocket).list();
  const Holders holders = askKubelet(options.podResources);

  auto array = nlohmann::json::array();
  Table table({"DEVICE", "POD", "CONTAINER", "INTERFACE", "NETWORK", "MAC", "VLAN", "SETTINGS",
               "AGE", "STATE", "OUTLOOK"});
  std::set<std::string> attached;
  for (const auto& a : list.attachments()) {
    attached.insert(a.device_id());
    array.push_back(toJson(a));
    const auto& owner = a.owner();
    if (owner.container_id().empty()) {  // a record that can't be read
      const auto held = holders.byDevice.find(a.device_id());
      const bool known = held != holders.byDevice.end() && held->second.resource == a.resource();
      table.add({a.device_id(), known ? held->second.podNamespace + "/" + held->second.podName : "",
                 "", "", "", "", "", "", "", a.state(), ""});
      continue;
    }
    const PortSettings settings = settingsOf(a);
    table.add({a.device_id(),
               owner.pod_name().empty() ? "" : owner.pod_namespace() + "/" + owner.pod_name(),
               shortId(owner.container_id()), owner.interface(), owner.network(),
               textOf(settings.mac, ""), describeVlans(settings), describeSettings(settings),
               age(a.created(), std::time(nullptr)), stateOf(a), a.outlook()});
  }
  for (const auto& device : list.devices()) {
    const auto held = holders.byDevice.find(device.id());
    if (held == holders.byDevice.end() || attached.contains(device.id())) continue;
    if (held->second.resource != device.resource()) continue;
    const std::string state = fmt::format("held by {}/{}, not attached: no network annotation?",
                                          held->second.podNamespace, held->second.podName);
    table.add({device.id(), held->second.podNamespace + "/" + held->second.podName, "", "", "", "",
               "", "", "", state, ""});
    array.push_back({{"device", device.id()},
                     {"resource", device.resource()},
                     {"namespace", held->second.podNamespace},
                     {"pod", held->second.podName},
                     {"attached", false},
                     {"state", state}});
  }
  if (options.output == Output::json)
    fmt::print("{}\n", jsonText(array, 2));
  else if (array.empty())
    fmt::print("no attachments\n");
  else
    fmt::print("{}", table.text());
  if (!holders.error.empty())
    fmt::print(stderr, "vdpactl: {}; devices held but not attached are not shown\n", holders.error);
}

}  // namespace vdpa::ctl
