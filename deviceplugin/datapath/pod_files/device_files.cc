#include "deviceplugin/datapath/pod_files/device_files.h"

#include <fmt/core.h>

#include <cctype>
#include <string>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/json.h"
#include "common/port_settings.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {

nlohmann::json deviceJson(const OwnerRecord& record) {
  const Attachment& attachment = record.attachment;
  const auto node = [&]() -> nlohmann::json {
    if (record.device.numaNode < 0) return nullptr;  // it belongs to none
    return record.device.numaNode;
  };
  return {{"deviceID", attachment.deviceId},
          {"resource", attachment.resource},
          {"backend", nameOf(record.device.backend)},
          {"socket", attachment.socket},
          {"mac", textOf(attachment.port.mac, "")},
          {"mtu", attachment.port.mtu.value_or(0)},
          {"queuePairs", attachment.queuePairs},
          {"queueSize", attachment.queueSize},
          {"vlan", attachment.port.vlan.value_or(0)},
          {"vlanTrunk", textOf(attachment.port.vlanTrunk, "")},
          {"network", attachment.owner.network},
          {"interface", attachment.owner.interface},
          {"ips", attachment.ips},
          {"numaNode", node()}};
}

std::string ealArguments(const Attachment& attachment) {
  if (attachment.socket.empty()) return "";  // a netdev, which is not for DPDK
  // EAL finds the driver by the name's prefix, splits the argument at commas, and silently drops a
  // second device of the same name.
  std::string name = "net_virtio_user_" + attachment.owner.interface;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '.') c = '_';
  return fmt::format("--vdev={},path={},mac={},queues={},queue_size={}", name, attachment.socket,
                     textOf(attachment.port.mac, ""), attachment.queuePairs, attachment.queueSize);
}

void writeDeviceFiles(const std::string& directory, const OwnerRecord& record) {
  writeFileAtomically(directory + "/device.json", jsonText(deviceJson(record), 2) + "\n",
                      Durability::memory, 0644);
  writeFileAtomically(directory + "/eal-args", ealArguments(record.attachment) + "\n",
                      Durability::memory, 0644);
}

}  // namespace vdpa::datapath
