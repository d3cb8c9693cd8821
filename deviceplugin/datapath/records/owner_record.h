// The owner record: the only file that says who has a device. Written before the changes it names
// are made.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <optional>
#include <string>

#include "common/mac_address.h"
#include "common/port_policy.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/namespace_id.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/pod_addresses.h"
#include "deviceplugin/datapath/model/vf_values.h"

namespace vdpa::datapath {

// The progress of an attachment. All but `attached` ones are undone when a datapath starts.
enum class Phase { attaching, attached, detaching };

// The hardware settings that an attachment changes.
struct FoundHardware {
  // The vDPA device's previous MAC; zero if it reported none. Absent: it isn't changed.
  std::optional<MacAddress> vdpaMac;
  VfValues vf;                    // before
  std::vector<VfPart> vfChanges;  // in this order
  bool operator==(const FoundHardware&) const = default;
};

struct OwnerRecord {
  std::string bootId;  // /proc/sys/kernel/random/boot_id when it was written
  Phase phase = Phase::attaching;
  Attachment attachment;
  NamespaceId netns;  // of attachment.owner.netns
  // Enough to restart the device's processes before the device plugin has reported.
  SocketOptions socket;
  SwitchConfig software;
  PortPolicy policy;  // when it was attached: the guest agrees on the offloads once
  DeviceConfig device;
  std::vector<PodRoute> routes;
  std::string netdev;  // of a device that was moved into the pod: its name on the host
  FoundHardware found;
  bool macAsked = false;  // else we choose it; of a running Attach, not kept on disk
};

nlohmann::json toJson(const OwnerRecord& record);
// Throws a std::exception that says what is wrong, also for a record of a later version.
OwnerRecord ownerRecordFromJson(const nlohmann::json& json);

}  // namespace vdpa::datapath
