// Uplinks that are netdevs of the node.
#pragma once

#include "deviceplugin/datapath/switch/uplink/dpdk_uplink.h"
#include "deviceplugin/datapath/switch/uplink/uplink_options.h"

namespace vdpa::vswitch {

// By a packet socket: the node uses the netdev as well, and gets a copy of its frames. The process
// needs CAP_NET_RAW.
UplinkDevice packetDevice(const UplinkOptions& options);

// By AF_XDP: the frames go to the switch alone. The process needs CAP_NET_ADMIN, CAP_NET_RAW and
// CAP_BPF, and the netdev as many channels as there are queues.
UplinkDevice xdpDevice(const UplinkOptions& options);

}  // namespace vdpa::vswitch
