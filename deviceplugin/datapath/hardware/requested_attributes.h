// MAC and MTU of a vDPA device whose driver takes them only when the device is made: a provisioned
// device is remade, while it is free, for a network that requests others.
#pragma once

#include <optional>
#include <string>

#include "common/mac_address.h"
#include "common/port_settings.h"
#include "deviceplugin/datapath/model/offered_devices.h"

namespace vdpa::datapath {

// The values that a vDPA device reports.
struct VdpaFacts {
  std::optional<MacAddress> mac;  // absent: none, as without VIRTIO_NET_F_MAC
  unsigned mtu = 0;               // 0: not reported
};

// Not under `attach: vhost-vdpa`: the kubelet has handed its character device to a pod before the
// network is known, and a device that is remade may get another one.
bool mayRemake(const DeviceConfig& device);

// A driver that ignores a MAC that is set later.
bool takesMacOnlyWhenMade(const VdpaRules& rules);

// Whether a device that is made with these can have VIRTIO_NET_F_MTU.
bool mayHaveMtu(const VdpaAttributes& attributes);

// The attributes that the device has to be made with for these settings; its own if they suffice.
// `macAsked`: the MAC was requested, not chosen by us. Throws RefusedError (invalidArgument) for an
// MTU if the resource leaves out the feature MTU.
VdpaAttributes attributesFor(const std::string& deviceId, const DeviceConfig& device,
                             const PortSettings& port, bool macAsked, const VdpaFacts& now);

// The same without optional attributes: a MAC that was not requested, and an MTU below the
// device's, which the worker offers or the netdev gets.
VdpaAttributes requiredOf(const VdpaAttributes& wanted, const DeviceConfig& device, bool macAsked,
                          const VdpaFacts& now);

// Why a MAC or MTU (`key`) that its driver takes only when it is made can't be given to this
// device, and what to do.
std::string whyNotRemade(const DeviceConfig& device, const std::string& key);

// Throws RefusedError (invalidArgument) for a requested MTU greater than the device's under
// `attach: vhost-vdpa`, where nothing else compares them. A device that reports none has 1500, as
// in virtio without VIRTIO_NET_F_MTU.
void checkMtu(const std::string& deviceId, const DeviceConfig& device, unsigned asked,
              const VdpaFacts& now);

}  // namespace vdpa::datapath
