// A poller's queues between hot and cold, by hand: what happens at each moment in between.
#include "deviceplugin/datapath/switch/forwarding/sources.h"

#include <catch2/catch.hpp>
#include <sys/eventfd.h>

#include <utility>
#include <vector>

#include "common/serving_page.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/forwarding/source.h"
#include "tests/unit/switch/pods.h"
#include "tests/unit/virtqueue/driver.h"

using namespace vdpa;
using namespace vdpa::vswitch;
using namespace vdpa::vswitch::test;
using virtqueue::test::PackedDriver;
using virtqueue::test::SplitDriver;

namespace {

// Of a list of one.
Source& add(Sources& sources, TransmitQueue& queue) {
  SourceList owned;
  Source& source = owned.emplace_back(queue, kHz);
  sources.add(std::move(owned));
  return source;
}

}  // namespace

TEMPLATE_TEST_CASE("frames that come before notifications are on keep their queue hot", "",
                   SplitDriver, PackedDriver) {
  ServingPage serving("/tmp/vdpa-sources-test", 1, 2);
  const UniqueFd kick(::eventfd(0, EFD_NONBLOCK));
  Pod<TestType> pod(1);
  pod.transmit->kick = kick.get();
  Sources sources(serving.cell(0));
  Source& source = add(sources, *pod.transmit);
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
  Source& other = add(sources, *idle.transmit);
  CHECK(sources.cool(other));
  CHECK_FALSE(other.hot);
  const auto mark = idle.sends.mark();
  REQUIRE(idle.send(frame(macOf(1), macOf(2))));
  CHECK(idle.sends.wantsKick(mark));
}

TEST_CASE("the hot queues are polled in the order in which they were served") {
  ServingPage serving("/tmp/vdpa-sources-test", 1, 4);
  Pod<SplitDriver> one(1), two(2), three(3);
  Sources sources(serving.cell(0));
  Source& first = add(sources, *one.transmit);
  Source& second = add(sources, *two.transmit);
  Source& third = add(sources, *three.transmit);
  std::vector<Source*> order;
  const auto polled = [&](auto poll) {
    order.clear();
    sources.eachHot([&](Source& source) {
      order.push_back(&source);
      poll(source);
    });
    return order;
  };
  const auto nothing = [](Source&) {};
  CHECK(polled([&](Source& source) { sources.makeLast(source); }) ==
        std::vector{&first, &second, &third});
  polled([&](Source& source) {
    if (&source == &first) sources.makeLast(source);
  });
  CHECK(polled(nothing) == std::vector{&second, &third, &first});
  // Each is polled once, also if one before it leaves.
  CHECK(polled([&](Source& source) {
          if (&source != &third) sources.leave(source);
        }) == std::vector{&second, &third, &first});
  CHECK(polled(nothing) == std::vector{&third});
  CHECK(sources.anyCold());
  CHECK(&sources.remove(*one.transmit).front() == &first);
  CHECK(sources.remove(*one.transmit).empty());
  sources.heat(second);
  CHECK(polled(nothing) == std::vector{&third, &second});
  CHECK_FALSE(sources.anyCold());
}
