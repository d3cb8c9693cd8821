// The features that a pod is offered, by the engine and by the options.
#include "deviceplugin/datapath/worker/offered_features.h"

#include <catch2/catch.hpp>

#include <cstdint>

#include "common/mac_address.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/options.h"

using namespace vdpa;
using namespace vdpa::worker;
namespace feature = vhost_user::feature;
namespace protocol_feature = vhost_user::protocol_feature;

namespace {

constexpr uint64_t kUnsafe = feature::kIndirectDescriptors | feature::kMergeableBuffers;
constexpr uint64_t kSomeOffloads = feature::kChecksum | feature::kHostTso4 | feature::kGuestTso6 |
                                   feature::kHostUso | feature::kGuestUso4;

WorkerOptions port() {
  WorkerOptions options;
  options.behindSwitch = true;
  options.mac = MacAddress({2, 0, 0, 0, 0, 7});
  return options;
}

// As of rte_vhost, so far as it matters here.
EngineLimits earlierSwitch() {
  EngineLimits limits;
  limits.features = kUnsafe | feature::kVersion1 | feature::kInOrder;
  limits.protocolFeatures = protocol_feature::kMultiqueue | protocol_feature::kReplyAck |
                            protocol_feature::kBackendRequests | protocol_feature::kStatus;
  return limits;
}

EngineLimits ownSwitch() {
  EngineLimits limits = earlierSwitch();
  limits.features |= kSomeOffloads;
  limits.protocolFeatures |= protocol_feature::kConfig;
  return limits;
}

}  // namespace

TEST_CASE("Behind a switch that checks its rings a pod may have any") {
  const auto offered = offeredFeatures(port(), ownSwitch());
  CHECK((offered.features & kUnsafe) == kUnsafe);
  CHECK(offered.minQueueSize == 1);
  auto options = port();
  options.queueSize = 32768;
  CHECK(offeredFeatures(options, ownSwitch()).queueSize == 32768);
}

TEST_CASE("Behind a switch of an earlier release it may not") {
  auto options = port();
  const auto offered = offeredFeatures(options, earlierSwitch());
  CHECK((offered.features & kUnsafe) == 0);
  CHECK(offered.minQueueSize == 32);
  options.queueSize = 32768;
  CHECK(offeredFeatures(options, earlierSwitch()).queueSize == 1024);
  options.mtu = 9000;
  EngineLimits jumbo = earlierSwitch();
  CHECK((offeredFeatures(options, jumbo).features & kUnsafe) == feature::kMergeableBuffers);
}

TEST_CASE("Offloads are offered as far as the engine has them, unless they are off") {
  auto options = port();
  CHECK((offeredFeatures(options, ownSwitch()).features & kSomeOffloads) == kSomeOffloads);
  CHECK((offeredFeatures(options, earlierSwitch()).features & kSomeOffloads) == 0);
  options.offloads = false;
  CHECK((offeredFeatures(options, ownSwitch()).features & kSomeOffloads) == 0);
}

TEST_CASE("What the worker does itself is offered whatever the engine has") {
  auto options = port();
  EngineLimits limits;
  CHECK(offeredFeatures(options, limits).features ==
        (feature::kMac | feature::kLinkStatus | feature::kInOrder));
  options.behindSwitch = false;  // a device may give buffers back in any order
  options.mac.reset();
  CHECK(offeredFeatures(options, limits).features == 0);  // nor does it report its link
}

TEST_CASE("The link's status is the engine's") {
  EngineLimits limits = ownSwitch();
  CHECK(offeredFeatures(port(), limits).config.status == 1);
  limits.linkUp = false;
  CHECK(offeredFeatures(port(), limits).config.status == 0);
}
