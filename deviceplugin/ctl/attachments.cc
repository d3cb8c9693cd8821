// vdpactl attachments
#include <fmt/format.h>

#include <ctime>
#include <set>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/version.h"
#include "deviceplugin/ctl/age.h"
#include "deviceplugin/ctl/client.h"
#include "deviceplugin/ctl/commands.h"
#include "deviceplugin/ctl/holders.h"
#include "deviceplugin/ctl/table.h"

namespace vdpa::ctl {
namespace {

// The settings besides MAC and VLAN, as a network's configuration names them.
std::string settingsOf(const datapath::v1::Settings& settings) {
  std::vector<std::string> words{fmt::format("mtu={}", settings.mtu())};
  if (settings.vlan_qos()) words.push_back(fmt::format("vlanQoS={}", settings.vlan_qos()));
  if (settings.vlan_proto() == "802.1ad") words.push_back("vlanProto=802.1ad");
  if (settings.spoof_check()) words.push_back("spoofchk=on");
  if (settings.trust()) words.push_back("trust=on");
  if (!settings.link_state().empty() && settings.link_state() != "auto")
    words.push_back("link_state=" + settings.link_state());
  if (settings.min_tx_rate())
    words.push_back(fmt::format("min_tx_rate={}", settings.min_tx_rate()));
  if (settings.max_tx_rate())
    words.push_back(fmt::format("max_tx_rate={}", settings.max_tx_rate()));
  return fmt::format("{}", fmt::join(words, ","));
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
  return {{"device", a.device_id()},
          {"resource", a.resource()},
          {"backend", a.backend()},
          {"namespace", a.owner().pod_namespace()},
          {"pod", a.owner().pod_name()},
          {"container", a.owner().container_id()},
          {"interface", a.owner().interface()},
          {"network", a.owner().network()},
          {"netns", a.owner().netns()},
          {"mac", a.settings().mac()},
          {"vlan", a.settings().vlan()},
          {"mtu", a.settings().mtu()},
          {"vlanQoS", a.settings().vlan_qos()},
          {"vlanProto", a.settings().vlan_proto()},
          {"spoofchk", a.settings().spoof_check()},
          {"trust", a.settings().trust()},
          {"link_state", a.settings().link_state()},
          {"min_tx_rate", a.settings().min_tx_rate()},
          {"max_tx_rate", a.settings().max_tx_rate()},
          {"ips", std::vector<std::string>(a.ips().begin(), a.ips().end())},
          {"socket", a.socket()},
          {"created", a.created()},
          {"attached", !a.owner().container_id().empty()},
          {"state", a.state()},
          {"workerVersion", a.worker_version()},
          {"outlook", a.outlook()}};
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
    const auto& settings = a.settings();
    table.add({a.device_id(),
               owner.pod_name().empty() ? "" : owner.pod_namespace() + "/" + owner.pod_name(),
               shortId(owner.container_id()), owner.interface(), owner.network(), settings.mac(),
               settings.vlan() ? std::to_string(settings.vlan()) : "", settingsOf(settings),
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
