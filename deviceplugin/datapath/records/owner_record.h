// The owner record: the one file that says who has a device. Written before the effects it names.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <optional>
#include <string>

#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/namespace_id.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/pod_addresses.h"
#include "deviceplugin/datapath/model/vf_values.h"

namespace vdpa::datapath {

// How far an attachment got. Whatever is not `attached` when a datapath starts is undone.
enum class Phase { attaching, attached, detaching };

// Settings of its hardware that an attachment changes.
struct FoundHardware {
  // Of the vDPA device, before: empty if it told none. Nothing: that isn't changed.
  std::optional<std::string> vdpaMac;
  VfValues vf;                    // before
  std::vector<VfPart> vfChanges;  // in this order
  bool operator==(const FoundHardware&) const = default;
};

struct OwnerRecord {
  std::string bootId;  // /proc/sys/kernel/random/boot_id when it was written
  Phase phase = Phase::attaching;
  Attachment attachment;
  NamespaceId netns;  // of attachment.owner.netns
  // Enough to start again what serves the device before the device plugin has spoken.
  SocketOptions socket;
  SwitchConfig software;
  DeviceConfig device;
  std::vector<PodRoute> routes;
  std::string netdev;  // of a device that was moved into the pod: what the host called it
  FoundHardware found;
  bool macAsked = false;  // or it is ours to choose; of a running Attach, and not kept on disk
};

nlohmann::json toJson(const OwnerRecord& record);
// Throws std::exception that says what is wrong, for a record of a later version too.
OwnerRecord ownerRecordFromJson(const nlohmann::json& json);

}  // namespace vdpa::datapath
