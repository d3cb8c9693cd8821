// The fate of orphaned attachments, for every answer of the kubelet and any clock.
#include "deviceplugin/datapath/attachments/orphans.h"

#include <catch2/catch.hpp>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/pod_resources.h"
#include "deviceplugin/datapath/model/owner.h"

using namespace vdpa;
using namespace vdpa::datapath;
using namespace std::chrono_literals;
using Catch::Matchers::Contains;
using Fate = Verdict::Fate;

namespace {

const Owner kOwner{"c0", "net1", "/var/run/netns/x", "fast", "default", "pod", "uid"};
const PodDevice kHeld{"default", "pod", "app", "vdpa.io/nic", "nic-0"};

ObservedAttachment seen(bool namespaceGone, const Owner& owner = kOwner) {
  return {"nic-0", "vdpa.io/nic", owner, namespaceGone, false};
}

// A kubelet, a clock, and one check after the other.
class TestNode {
 public:
  std::vector<std::string> look(const ObservedAttachment& attachment) {
    std::vector<std::string> due;
    const auto ask = [this] {
      ++questions;
      if (!problem.empty()) throw std::runtime_error(problem);
      return held;
    };
    for (const auto& each : reconciliation.look({attachment}, ask, now))
      due.push_back(each.deviceId);
    return due;
  }
  std::string outlook() const { return reconciliation.outlook("nic-0", kOwner.key(), now); }

  Orphans reconciliation{30s};
  Orphans::Clock::time_point now{1h};
  std::vector<PodDevice> held;
  std::string problem;
  int questions = 0;
};

}  // namespace

TEST_CASE("the decision about one attachment") {
  const Orphans::Clock::time_point now{1h};
  const KubeletAnswer silent{{}, "cannot ask"}, empty{{}, ""}, gives{{kHeld}, ""};
  const Verdict first, counted{Fate::counting, now - 29s, ""}, ripe{Fate::counting, now - 30s, ""};
  const auto fate = [&](const ObservedAttachment& attachment, const KubeletAnswer& answer,
                        const Verdict& before) {
    return decide(attachment, answer, before, now, 30s).fate;
  };

  // Absence from PodResources alone: never.
  for (const auto& answer : {silent, empty, gives})
    for (const auto& before : {first, counted, ripe})
      CHECK(fate(seen(false), answer, before) == Fate::stays);

  CHECK(fate(seen(true), empty, first) == Fate::counting);
  CHECK(fate(seen(true), empty, counted) == Fate::counting);
  CHECK(fate(seen(true), empty, ripe) == Fate::due);
  for (const auto& before : {first, counted, ripe}) {
    CHECK(fate(seen(true), gives, before) == Fate::listed);
    CHECK(fate(seen(true), silent, before) == Fate::unanswered);
    CHECK_FALSE(decide(seen(true), gives, before, now, 30s).since);
    CHECK_FALSE(decide(seen(true), silent, before, now, 30s).since);
  }
  CHECK(decide(seen(true), empty, first, now, 0s).fate == Fate::due);

  auto detaching = seen(false);
  detaching.detaching = true;  // no one is asked: its owner has detached it
  for (const auto& answer : {silent, empty, gives})
    CHECK(fate(detaching, answer, first) == Fate::due);
}

TEST_CASE("the kubelet gives a device to a pod only with all its names") {
  const Orphans::Clock::time_point now{1h};
  const auto fateWith = [&](PodDevice held) {
    return decide(seen(true), {{std::move(held)}, ""}, {}, now, 30s).fate;
  };
  CHECK(fateWith(kHeld) == Fate::listed);
  CHECK(fateWith({"other", "pod", "app", "vdpa.io/nic", "nic-0"}) == Fate::counting);
  CHECK(fateWith({"default", "next", "app", "vdpa.io/nic", "nic-0"}) == Fate::counting);
  CHECK(fateWith({"default", "pod", "app", "example.com/nic", "nic-0"}) == Fate::counting);
  CHECK(fateWith({"default", "pod", "app", "vdpa.io/nic", "nic-1"}) == Fate::counting);
}

TEST_CASE("an abandoned attachment is detached after the grace period") {
  TestNode node;
  CHECK(node.look(seen(false)).empty());
  CHECK(node.questions == 0);  // its answer wouldn't matter
  CHECK(node.outlook().empty());
  CHECK(node.look(seen(true)).empty());
  CHECK(node.outlook() == "abandoned: detached in 30 s");
  CHECK(node.reconciliation.counts().abandoned == 1);
  node.now += 9500ms;
  CHECK(node.outlook() == "abandoned: detached in 21 s");
  node.now += 20s;
  CHECK(node.look(seen(true)).empty());
  node.now += 500ms;
  CHECK(node.look(seen(true)) == std::vector<std::string>{"nic-0"});
  node.reconciliation.countDetached();
  CHECK(node.reconciliation.look({}, nullptr, node.now).empty());
  CHECK(node.reconciliation.counts().abandoned == 0);
  CHECK(node.reconciliation.counts().detached == 1);
  CHECK(node.outlook().empty());
}

TEST_CASE("the grace period starts anew when either comes back, or the kubelet can't be asked") {
  const std::string what = GENERATE("namespace", "kubelet", "silence");
  INFO(what);
  TestNode node;
  node.look(seen(true));
  node.now += 29s;
  if (what == "kubelet") node.held = {kHeld};
  if (what == "silence") node.problem = "cannot ask the kubelet: connection refused";
  node.look(seen(what != "namespace"));
  if (what == "namespace") CHECK(node.outlook().empty());
  if (what == "kubelet")
    CHECK_THAT(node.outlook(), Contains("kept while the kubelet lists the device for its pod"));
  if (what == "silence")
    CHECK_THAT(node.outlook(),
               Contains("kept until the kubelet answers") && Contains("connection refused"));
  CHECK(node.reconciliation.counts().abandoned == 0);
  node.held.clear();
  node.problem.clear();
  node.now += 29s;
  CHECK(node.look(seen(true)).empty());
  node.now += 29s;
  CHECK(node.look(seen(true)).empty());
  node.now += 1s;
  CHECK(node.look(seen(true)).size() == 1);
}

TEST_CASE("a kubelet that is away for long is waited for") {
  TestNode node;
  node.problem = "no such socket";
  for (int hour = 0; hour < 48; ++hour, node.now += 1h) CHECK(node.look(seen(true)).empty());
}

TEST_CASE("an owner that names no pod needs no kubelet") {
  TestNode node;
  node.problem = "there is none";
  const Owner plain{"c0", "net1", "/var/run/netns/x", "fast", "", "", ""};
  CHECK(node.look(seen(true, plain)).empty());
  node.now += 30s;
  CHECK(node.look(seen(true, plain)).size() == 1);
  CHECK(node.questions == 0);
}

TEST_CASE("a new owner of the device starts with a clean slate") {
  TestNode node;
  node.look(seen(true));
  node.now += 30s;
  Owner next = kOwner;
  next.containerId = "c1";
  CHECK(node.look(seen(true, next)).empty());
  CHECK(node.outlook().empty());
  CHECK(node.reconciliation.outlook("nic-0", next.key(), node.now) ==
        "abandoned: detached in 30 s");
}

TEST_CASE("one look asks the kubelet once") {
  TestNode node;
  const auto ask = [&] {
    ++node.questions;
    return std::vector<PodDevice>();
  };
  std::vector<ObservedAttachment> many;
  for (int i = 0; i < 64; ++i) {
    many.push_back(seen(true));
    many.back().deviceId = "nic-" + std::to_string(i);
  }
  node.reconciliation.look(many, ask, node.now);
  CHECK(node.questions == 1);
  CHECK(node.reconciliation.counts().abandoned == 64);
}
