// Bursts from a transmit queue. Its one reader needs no lock.
#pragma once

#include <cstddef>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/ring.h"

namespace vdpa::virtqueue {

// Clears the list and takes up to `most` available buffers into it. If they are fewer, the ring's
// fault() and reader().miss() have the reason, if there is one besides an empty ring.
template <Ring R>
size_t fetch(R& ring, BufferList& list, size_t most, Lease& lease) {
  list.clear();
  ring.rewind();
  lease = ring.take(list, ring.read(list, most));
  return lease.count;
}

// Gives them back. Returns whether the driver wants to be notified.
template <Ring R>
bool giveBack(R& ring, const BufferList& list, Lease& lease) {
  ring.fill(lease, list);
  return ring.publish(lease);
}

}  // namespace vdpa::virtqueue
