// vdpactl devices
#include <fmt/core.h>

#include <map>
#include <string>

#include "common/json.h"
#include "deviceplugin/ctl/client.h"
#include "deviceplugin/ctl/commands.h"
#include "deviceplugin/ctl/table.h"

namespace vdpa::ctl {

void printDevices(const Options& options) {
  const auto list = DatapathClient(options.datapathSocket).list();
  std::map<std::string, const datapath::v1::Attachment*> attached;
  for (const auto& attachment : list.attachments()) attached[attachment.device_id()] = &attachment;

  auto array = nlohmann::json::array();
  Table table({"DEVICE", "RESOURCE", "HEALTH", "POD", "REASON"});
  for (const auto& device : list.devices()) {
    const auto found = attached.find(device.id());
    const std::string pod = found == attached.end() ? "" : podOf(found->second->owner());
    const std::string health = device.healthy() ? "Healthy" : "Unhealthy";
    table.add({device.id(), device.resource(), health, pod, device.reason()});
    array.push_back({{"device", device.id()},
                     {"resource", device.resource()},
                     {"healthy", device.healthy()},
                     {"reason", device.reason()},
                     {"pod", pod}});
  }
  if (options.output == Output::json)
    fmt::print("{}\n", jsonText(array, 2));
  else if (list.devices().empty())
    fmt::print("no devices: vdpa-device-plugin has not reported any; see its log\n");
  else
    fmt::print("{}", table.text());
}

}  // namespace vdpa::ctl
