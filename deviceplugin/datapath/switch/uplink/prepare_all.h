// Frames that a driver refuses must not take the rest of their burst with them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

namespace vdpa::vswitch {

// `prepare` is rte_eth_tx_prepare(): it takes packets from the front, returns how many it has made
// ready, and stops at the first that cannot be sent. Moves those that cannot to the end; the others
// keep their order. Returns how many of them there are.
template <typename Packet, typename Prepare>
size_t prepareAll(std::span<Packet> packets, Prepare prepare) {
  size_t ready = 0, left = packets.size();
  for (;;) {
    const size_t some = prepare(packets.subspan(ready, left));
    ready += some;
    left -= some;
    if (left == 0) return ready;
    const auto rest = packets.subspan(ready);
    std::rotate(rest.begin(), rest.begin() + 1, rest.end());
    --left;
  }
}

}  // namespace vdpa::vswitch
