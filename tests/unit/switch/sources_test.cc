// A poller's queues between hot and cold, by hand: what happens at each moment in between.
#include "deviceplugin/datapath/switch/forwarding/sources.h"

#include <catch2/catch.hpp>
#include <sys/eventfd.h>

#include <memory>

#include "common/serving_page.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/forwarding/source.h"
#include "tests/unit/switch/pods.h"
#include "tests/unit/virtqueue/driver.h"

using namespace vdpa;
using namespace vdpa::vswitch;
using namespace vdpa::vswitch::test;
using virtqueue::test::PackedDriver;
using virtqueue::test::SplitDriver;

TEMPLATE_TEST_CASE("frames that come before notifications are on keep their queue hot", "",
                   SplitDriver, PackedDriver) {
  ServingPage serving("/tmp/vdpa-sources-test", 1, 2);
  const UniqueFd kick(::eventfd(0, EFD_NONBLOCK));
  Pod<TestType> pod(1);
  pod.transmit->kick = kick.get();
  Sources sources(serving.cell(0));
  auto owned = std::make_unique<Source>(*pod.transmit, kHz);
  Source& source = *owned;
  sources.add(std::move(owned));
  REQUIRE(source.kicks);

  // The poller has found nothing, and then the pod sends. It kicks nobody, as it was asked.
  const auto before = pod.sends.mark();
  REQUIRE(pod.send(frame(macOf(2), macOf(1))));
  CHECK_FALSE(pod.sends.wantsKick(before));
  CHECK_FALSE(sources.cool(source));
  CHECK(source.hot);

  // Without a frame it gets cold, and the pod is to kick for the next one.
  Pod<TestType> idle(2);
  idle.transmit->kick = kick.get();
  owned = std::make_unique<Source>(*idle.transmit, kHz);
  Source& other = *owned;
  sources.add(std::move(owned));
  CHECK(sources.cool(other));
  CHECK_FALSE(other.hot);
  const auto mark = idle.sends.mark();
  REQUIRE(idle.send(frame(macOf(1), macOf(2))));
  CHECK(idle.sends.wantsKick(mark));
}
