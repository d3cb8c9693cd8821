// Converts between datapath.proto and our own types, here only.
#pragma once

#include "datapath.pb.h"
#include "deviceplugin/datapath/attachments/datapath.h"
#include "deviceplugin/datapath/model/device_state.h"
#include "deviceplugin/datapath/model/offered_devices.h"

namespace vdpa::datapath {

std::vector<Resource> fromMessage(const datapath::v1::SetDevicesRequest& message);
AttachRequest fromMessage(const datapath::v1::AttachRequest& message);
CheckRequest fromMessage(const datapath::v1::CheckRequest& message);
PodAddresses fromMessage(const datapath::v1::SetAddressesRequest& message);

datapath::v1::DeviceState toMessage(const DeviceState& state);
datapath::v1::Attachment toMessage(const LiveAttachment& live);
datapath::v1::DeviceStats toMessage(const DeviceCounters& counters);

}  // namespace vdpa::datapath
