// The operations that both ring formats have; README.md says what each does. A program is written
// once, as templates over this, and chooses between the two for a burst, not for a packet.
#pragma once

#include <concepts>
#include <cstddef>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/fault.h"
#include "deviceplugin/datapath/virtqueue/packed_ring.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"
#include "deviceplugin/datapath/virtqueue/split_ring.h"

namespace vdpa::virtqueue {

template <typename R>
concept Ring = requires(R& ring, const R& constant, BufferList& list, Lease& lease, size_t count) {
  { ring.read(list, count) } -> std::same_as<size_t>;
  {ring.rewind()};
  { ring.take(list, count) } -> std::same_as<Lease>;
  {constant.fill(lease, list)};
  { ring.publish(lease) } -> std::same_as<bool>;
  { constant.available() } -> std::same_as<bool>;
  { ring.requestNotifications() } -> std::same_as<bool>;
  {ring.suppressNotifications()};
  { constant.openLeases() } -> std::same_as<size_t>;
  { constant.positions() } -> std::same_as<Positions>;
  { constant.fault() } -> std::same_as<const Fault&>;
};
static_assert(Ring<SplitRing> && Ring<PackedRing>);

}  // namespace vdpa::virtqueue
