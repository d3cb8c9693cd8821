// See the header.
#include "deviceplugin/datapath/device_files.h"

#include <fmt/format.h>

#include "common/atomic_file.h"
#include "common/naming.h"

namespace vdpa {

nlohmann::json deviceJson(const Attachment& attachment) {
  return {{"deviceID", attachment.deviceId},
          {"resource", attachment.resource},
          {"backend", "software"},
          {"socket", podSocket(attachment.deviceId)},
          {"mac", attachment.port.mac},
          {"mtu", attachment.port.mtu},
          {"queuePairs", attachment.queuePairs},
          {"queueSize", attachment.queueSize},
          {"vlan", attachment.port.vlan},
          {"network", attachment.owner.network},
          {"interface", attachment.owner.interface},
          {"ips", attachment.ips},
          {"numaNode", nullptr}};  // a software port belongs to no node
}

std::string ealArguments(const Attachment& attachment) {
  // EAL finds the driver by the name's start, splits the argument at commas, and drops a second
  // device of the same name in silence.
  std::string name = "net_virtio_user_" + attachment.owner.interface;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '.') c = '_';
  return fmt::format("--vdev={},path={},mac={},queues={},queue_size={}", name,
                     podSocket(attachment.deviceId), attachment.port.mac, attachment.queuePairs,
                     attachment.queueSize);
}

void writeDeviceFiles(const std::string& directory, const Attachment& attachment) {
  writeFileAtomically(directory + "/device.json", deviceJson(attachment).dump(2) + "\n",
                      Durability::memory, 0644);
  writeFileAtomically(directory + "/eal-args", ealArguments(attachment) + "\n", Durability::memory,
                      0644);
}

}  // namespace vdpa
