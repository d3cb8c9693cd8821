// The queues of a connected pod, as the pollers use them. The control thread makes them from the
// front-end's setup, withdraws them, and frees them when the pollers have passed (epoch.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <variant>

#include "deviceplugin/datapath/switch/forwarding/spin_lock.h"
#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/virtqueue/packed_ring.h"
#include "deviceplugin/datapath/virtqueue/receive.h"
#include "deviceplugin/datapath/virtqueue/split_ring.h"

namespace vdpa::vswitch {

struct Port;

using Ring = std::variant<virtqueue::SplitRing, virtqueue::PackedRing>;

// The memory of a connection, mapped; opaque to the pollers, which only keep it alive.
class GuestMemory;

struct Queue {
  Ring ring;
  Port* port = nullptr;
  uint16_t index = 0;  // the virtqueue's number
  int call = -1;       // the eventfd that notifies the pod; -1: it polls. Borrowed
  std::shared_ptr<const GuestMemory> memory;
  virtqueue::NetFormat format;  // of the frames in it
  Offloads offloads;            // that the pod agreed on for this direction
  // Set by a poller that has reported an offence of the pod: no poller serves the queue any more.
  std::atomic<bool> broken{false};
};

// On which the pod receives. Any poller delivers into it.
struct alignas(64) ReceiveQueue : Queue {
  SpinLock lock;  // the ring's: held for reserve() and publish(), never while frames are copied
};

// On which the pod sends. One poller serves it, to which the control thread has assigned it.
struct alignas(64) TransmitQueue : Queue {
  // The eventfd by which the pod notifies; -1: it doesn't, and the queue is polled. Borrowed.
  int kick = -1;
};

}  // namespace vdpa::vswitch
