#include "deviceplugin/datapath/switch/ports/features.h"

#include <catch2/catch.hpp>

#include <cstdint>

#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/switch/ports/capacity.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"

namespace {

using namespace vdpa;
using namespace vdpa::vswitch;
namespace feature = vhost_user::feature;

}  // namespace

TEST_CASE("offloads are offered unless they are off") {
  const uint64_t with = offeredFeatures(true, 1).features,
                 without = offeredFeatures(false, 1).features;
  // Bits 0, 1, 7 to 9, 11 to 13, 54 to 56; no UFO (10, 14).
  const uint64_t offloads = 0x3b83 | uint64_t{7} << 54;
  CHECK((with & offloads) == offloads);
  CHECK((without & offloads) == 0);
  CHECK((with & ~offloads) == without);
  for (const unsigned needed : {3, 15, 17, 18, 21, 22, 27, 28, 29, 30, 32, 34, 35})
    CHECK((without >> needed & 1) == 1);
  for (const unsigned never : {10, 14, 26, 33})  // UFO, LOG_ALL, ACCESS_PLATFORM
    CHECK((with >> never & 1) == 0);
  CHECK(offeredFeatures(true, 4).queuePairs == 4);
}

TEST_CASE("the header's length and the merging of buffers follow from the features") {
  CHECK(formatOf(0).headerSize == 10);
  CHECK(formatOf(feature::kVersion1).headerSize == 12);
  CHECK_FALSE(formatOf(feature::kVersion1).mergeable);
  CHECK(formatOf(feature::kMergeableBuffers).headerSize == 12);
  CHECK(formatOf(feature::kMergeableBuffers).mergeable);
}

TEST_CASE("each direction has the offloads that were agreed on for it") {
  CHECK(offloadsSent(0) == Offloads::kNone);
  CHECK(offloadsSent(feature::kChecksum) == Offloads::kChecksum);
  CHECK(offloadsReceived(feature::kChecksum) == Offloads::kNone);
  CHECK(offloadsReceived(feature::kGuestChecksum) == Offloads::kChecksum);

  const uint64_t all = offeredFeatures(true, 1).features;
  CHECK(offloadsSent(all) == offloadsReceived(all));
  CHECK(covers(offloadsSent(all), Offloads::kChecksum | Offloads::kTso4 | Offloads::kTso6 |
                                      Offloads::kEcn | Offloads::kUso4 | Offloads::kUso6));
  CHECK(offloadsSent(feature::kChecksum | feature::kHostUso) ==
        (Offloads::kChecksum | Offloads::kUso4 | Offloads::kUso6));
  CHECK(offloadsReceived(feature::kGuestChecksum | feature::kGuestUso6) ==
        (Offloads::kChecksum | Offloads::kUso6));
}

TEST_CASE("an offload without those it needs is none") {
  CHECK(offloadsSent(feature::kHostTso4 | feature::kHostUso) == Offloads::kNone);
  CHECK(offloadsReceived(feature::kGuestTso6 | feature::kChecksum) == Offloads::kNone);
  CHECK(offloadsReceived(feature::kGuestChecksum | feature::kGuestEcn) == Offloads::kChecksum);
}

TEST_CASE("the process's limits say how many ports fit") {
  CHECK(capacityFor(1, 1 << 20, 65530).ports == 4096);
  CHECK(capacityFor(1, 1 << 20, 65530).limit.empty());
  CHECK(capacityFor(16, 1 << 20, 65530).limit.empty());

  const Capacity files = capacityFor(1, 1024, 65530);
  CHECK(files.ports == (1024 - 128) / 6);
  CHECK(files.limit.find("RLIMIT_NOFILE is 1024") == 0);
  const Capacity mappings = capacityFor(1, 1024, 1312);
  CHECK(mappings.ports == 100);
  CHECK(mappings.limit.find("/proc/sys/vm/max_map_count is 1312") == 0);
  CHECK(capacityFor(1, 64, 65530).ports == 0);
}
