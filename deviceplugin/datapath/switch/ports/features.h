// The features of a port, and what follows from those that a pod's driver has agreed on.
#pragma once

#include <cstdint>

#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/vhost_user/session.h"
#include "deviceplugin/datapath/virtqueue/receive.h"

namespace vdpa::vswitch {

// The features that a port offers the worker. `offloads`: also checksums and segmentation, which
// the resource's configuration can turn off. `queuePairs`: of the switch's ports.
vhost_user::OfferedFeatures offeredFeatures(bool offloads, unsigned queuePairs);

// `features` are those that were agreed on.
virtqueue::NetFormat formatOf(uint64_t features);
// The offloads that the pod may use in frames that it sends (VIRTIO_NET_F_CSUM, HOST_*).
Offloads offloadsSent(uint64_t features);
// Those that it accepts in frames that it receives (GUEST_*).
Offloads offloadsReceived(uint64_t features);

}  // namespace vdpa::vswitch
