// MAC and MTU of a vDPA device whose driver takes them only when the device is made: for a network
// that asks for others, a provisioned device is remade while it is free.
#pragma once

#include <string>

#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/offered_devices.h"

namespace vdpa::datapath {

// A vDPA device's own report of itself.
struct VdpaFacts {
  std::string mac;   // empty: none, as without VIRTIO_NET_F_MAC
  unsigned mtu = 0;  // 0: not reported
};

// Not under `attach: vhost-vdpa`: the kubelet has handed its character device to a pod before the
// network is known, and a device that is remade may get another one.
bool mayRemake(const DeviceConfig& device);

// A driver for which a MAC that is set later is none.
bool takesMacOnlyWhenMade(const VdpaRules& rules);

// Whether a device that is made with these can have VIRTIO_NET_F_MTU.
bool mayHaveMtu(const VdpaAttributes& attributes);

// What the device has to be made with for these settings; its own attributes if that will do.
// `macAsked`: by somebody, and not chosen by us. Throws RefusedError (invalidArgument) for an MTU
// of a device whose resource leaves out the feature MTU.
VdpaAttributes attributesFor(const std::string& deviceId, const DeviceConfig& device,
                             const PortSettings& port, bool macAsked, const VdpaFacts& now);

// The same without what the attachment can do without: a MAC that nobody asked for, and an MTU
// below the device's, which the worker offers or the netdev gets.
VdpaAttributes requiredOf(const VdpaAttributes& wanted, const DeviceConfig& device, bool macAsked,
                          const VdpaFacts& now);

// Why a MAC or MTU (`key`) that its driver takes only when it is made can't be given to this
// device, and what to do.
std::string whyNotRemade(const DeviceConfig& device, const std::string& key);

// Throws RefusedError (invalidArgument) for an MTU that is asked for and greater than the device's,
// where nobody else compares them: under `attach: vhost-vdpa`. A device that shows none has 1500,
// as virtio has it without VIRTIO_NET_F_MTU.
void checkMtu(const std::string& deviceId, const DeviceConfig& device, unsigned asked,
              const VdpaFacts& now);

}  // namespace vdpa::datapath
