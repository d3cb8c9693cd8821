// vdpactl attachments
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <set>

#include "commands.h"
#include "holders.h"
#include "table.h"

namespace vdpa::ctl {
namespace {

std::string age(int64_t created) {
  const int64_t seconds = std::max<int64_t>(0, std::time(nullptr) - created);
  if (seconds < 120) return fmt::format("{}s", seconds);
  if (seconds < 2 * 3600) return fmt::format("{}m", seconds / 60);
  if (seconds < 48 * 3600) return fmt::format("{}h", seconds / 3600);
  return fmt::format("{}d", seconds / 86400);
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
          {"ips", std::vector<std::string>(a.ips().begin(), a.ips().end())},
          {"socket", a.socket()},
          {"created", a.created()},
          {"attached", true},
          {"state", a.state()}};
}

}  // namespace

void printAttachments(const Options& options) {
  const auto list = DatapathClient(options.datapathSocket).list();
  const Holders holders = askKubelet(options.podResources);

  auto array = nlohmann::json::array();
  Table table({"DEVICE", "POD", "NETWORK", "INTERFACE", "MAC", "VLAN", "AGE", "STATE"});
  std::set<std::string> attached;
  for (const auto& a : list.attachments()) {
    attached.insert(a.device_id());
    const auto& settings = a.settings();
    table.add({a.device_id(), podOf(a.owner()), a.owner().network(), a.owner().interface(),
               settings.mac(), settings.vlan() ? std::to_string(settings.vlan()) : "",
               age(a.created()), a.state()});
    array.push_back(toJson(a));
  }
  for (const auto& device : list.devices()) {
    const auto held = holders.byDevice.find(device.id());
    if (held == holders.byDevice.end() || attached.contains(device.id())) continue;
    if (held->second.resource != device.resource()) continue;
    const std::string state = fmt::format("held by {}/{}, not attached: no network annotation?",
                                          held->second.podNamespace, held->second.podName);
    table.add({device.id(), held->second.podNamespace + "/" + held->second.podName, "", "", "", "",
               "", state});
    array.push_back({{"device", device.id()},
                     {"resource", device.resource()},
                     {"namespace", held->second.podNamespace},
                     {"pod", held->second.podName},
                     {"attached", false},
                     {"state", state}});
  }
  if (options.output == Output::json)
    fmt::print("{}\n", array.dump(2));
  else if (array.empty())
    fmt::print("no attachments\n");
  else
    fmt::print("{}", table.text());
  if (!holders.error.empty())
    fmt::print(stderr, "vdpactl: {}; devices held but not attached are not shown\n", holders.error);
}

}  // namespace vdpa::ctl
