// Writes frames into DPDK's buffers, with the description of what the device has to finish.
#pragma once

#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "deviceplugin/datapath/switch/forwarding/uplink.h"

namespace vdpa::vswitch {

// Copies the frame, and inserts its tag on the way, so that no device needs to. Null if no buffers
// are left (`noMemory` is then true), or if no device can finish the frame: its sender has changed
// its headers since they were checked.
rte_mbuf* writePacket(rte_mempool* pool, const Uplink::Outgoing& frame, bool& noMemory);

}  // namespace vdpa::vswitch
