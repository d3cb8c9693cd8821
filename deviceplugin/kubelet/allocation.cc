#include "deviceplugin/kubelet/allocation.h"

#include <fmt/core.h>

#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/backend.h"
#include "common/naming.h"
#include "deviceplugin.pb.h"
#include "deviceplugin/kubelet/device_info_files.h"
#include "deviceplugin/kubelet/device_list.h"
#include "deviceplugin/resources/device.h"

namespace vdpa::plugin {

Allocation::Allocation(std::string resource, std::string runDirectory, const DeviceList& devices,
                       DeviceInfoFiles& files)
    : resource_(std::move(resource)),
      runDirectory_(std::move(runDirectory)),
      devices_(devices),
      files_(files) {}

Device Allocation::usable(const std::string& id) const {
  const auto found = devices_.find(id);
  if (!found)
    throw std::invalid_argument(
        fmt::format("{} has no device {} on this node: it may just have been withdrawn; delete the "
                    "pod and let its "
                    "controller create a new one",
                    resource_, id));
  const auto& [device, health] = *found;
  if (!health.healthy)
    throw std::invalid_argument(
        fmt::format("device {} of {} is unhealthy: {}; fix that (vdpactl devices on the node "
                    "shows it), then delete "
                    "the pod and let its controller create a new one",
                    id, resource_, health.reason));
  return device;
}

v1beta1::ContainerAllocateResponse Allocation::allocate(
    const v1beta1::ContainerAllocateRequest& request) const {
  v1beta1::ContainerAllocateResponse response;
  std::set<std::string> seen;
  std::string ids, sockets;
  for (const auto& id : request.devices_ids()) {
    if (!seen.insert(id).second)
      throw std::invalid_argument(fmt::format(
          "device {} of {} is requested twice; restart the kubelet of this node", id, resource_));
    const Device device = usable(id);
    files_.write(resource_, device);
    auto* mount = response.add_mounts();
    mount->set_host_path(fmt::format("{}/devices/{}", runDirectory_, id));
    mount->set_container_path(podDirectory(id));
    mount->set_read_only(true);
    const char* comma = ids.empty() ? "" : ",";
    ids += comma + id;
    if (device.attach == Attach::vhostUser) sockets += comma + podSocket(id);
    if (device.attach != Attach::vhostVdpa) continue;
    const std::string node = "/dev/" + device.characterDevice;
    auto* spec = response.add_devices();
    spec->set_host_path(node);
    spec->set_container_path(node);
    spec->set_permissions("rw");
    sockets += comma + node;
  }
  const std::string variable = variableName(resource_);
  (*response.mutable_envs())[variable] = std::move(ids);
  if (!sockets.empty()) (*response.mutable_envs())[variable + "_SOCKETS"] = std::move(sockets);
  return response;
}

}  // namespace vdpa::plugin
