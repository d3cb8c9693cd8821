// Packets that a driver refuses, in a burst.
#include "deviceplugin/datapath/switch/uplink/prepare_all.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

using vdpa::vswitch::prepareAll;

namespace {

// As rte_eth_tx_prepare(): stops at the first that is negative.
size_t prepare(std::span<int> packets) {
  return static_cast<size_t>(
      std::find_if(packets.begin(), packets.end(), [](int packet) { return packet < 0; }) -
      packets.begin());
}

std::vector<int> prepared(std::vector<int> packets) {
  const std::vector<int> before = packets;
  const size_t count = prepareAll(std::span(packets), prepare);
  CHECK(std::is_permutation(packets.begin(), packets.end(), before.begin()));
  CHECK(std::all_of(packets.begin() + static_cast<std::ptrdiff_t>(count), packets.end(),
                    [](int packet) { return packet < 0; }));
  packets.resize(count);
  return packets;
}

}  // namespace

TEST_CASE("a packet that its driver refuses does not take the others with it") {
  using Packets = std::vector<int>;
  CHECK(prepared({}) == Packets{});
  CHECK(prepared({1, 2, 3}) == Packets{1, 2, 3});
  CHECK(prepared({-1}) == Packets{});
  CHECK(prepared({-1, 2, 3}) == Packets{2, 3});
  CHECK(prepared({1, -2, -3, 4, -5, 6}) == Packets{1, 4, 6});
  CHECK(prepared({1, 2, -3}) == Packets{1, 2});
  CHECK(prepared({-1, -2, -3}) == Packets{});
}
