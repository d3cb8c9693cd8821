// A start that finds what it can't read, can't end or need not undo.
#include <signal.h>

#include "common/atomic_file.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "tests/unit/datapath/node.h"

using namespace vdpa;
using namespace vdpa::datapath;
using namespace std::chrono_literals;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

namespace {

// Until what is returned is removed, nobody can tell whether the worker of nic-0 runs.
std::filesystem::path hideWorker(const Node& node) {
  const auto lock =
      std::filesystem::path(node.paths().workerControl("nic-0")).replace_extension(".lock");
  REQUIRE(std::filesystem::remove(lock));
  std::filesystem::create_directory(lock);
  return lock;
}

}  // namespace

TEST_CASE("a worker that can't be found out about at the start is not forgotten later") {
  const Node node;
  CHECK(dieAt(node, "detaching", [](Attachments& attachments) {
    attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
    attachments.detach(kOwner.key());
  }));
  const auto lock = hideWorker(node);
  const auto attachments = node.start();
  attachments->reconcile();
  CHECK(node.hasRecord());
  CHECK(node.hasWorker());
  REQUIRE(attachments->list().size() == 1);
  CHECK_THAT(attachments->list()[0].state,
             StartsWith("failed: detaching: cannot open " + lock.string()));
  REQUIRE(std::filesystem::remove(lock));
  attachments->reconcile();
  node.checkFree();
}

TEST_CASE("a worker that the start could not end") {
  const Node node;
  node.start()->attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  OwnerRecords(node.paths().owners()).remove("nic-0");
  const int stray = node.workerPid();
  const auto lock = hideWorker(node);
  const auto attachments = node.start();
  waitHealthy(*attachments);

  SECTION("is not the next pod's") {
    CHECK_THROWS_WITH(attachments->attach({kOwner, "nic-0", {}, {}, {}}, kNever),
                      Contains("cannot open " + lock.string()));
    REQUIRE(std::filesystem::remove(lock));
    attachments->attach({kOwner, "nic-0", {}, {}, {}}, kNever);
    CHECK(node.workerPid() != stray);
    CHECK(attachments->detach(kOwner.key()));
    node.checkFree();
  }
  SECTION("is told of by a drain, and ended by the next") {
    const auto first = attachments->drain();
    REQUIRE(first.left.size() == 1);
    CHECK_THAT(first.left[0], StartsWith("vdpa-worker of nic-0: cannot open " + lock.string()));
    CHECK(first.ended == std::vector<std::string>{"vdpa-switch of vdpa.io/nic"});
    CHECK(node.hasWorker());
    REQUIRE(std::filesystem::remove(lock));
    const auto second = attachments->drain();
    CHECK(second.left.empty());
    CHECK(second.ended == std::vector<std::string>{"vdpa-worker of nic-0"});
    CHECK_FALSE(node.hasWorker());
  }
}

TEST_CASE("a device whose record can't be read is withheld, and what serves it runs on") {
  const Node node;
  node.start()->attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  writeFileAtomically(node.paths().owners() + "/nic-0.json", "{\"version\": 1", Durability::memory);
  const std::string words = node.badRecord() + " cannot be used";
  Owner next = kOwner;
  next.containerId = "c1";
  for (int start = 0; start < 2; ++start) {
    // An earlier version left no marker of the boot.
    if (start == 1) std::filesystem::remove(node.paths().bootMarker());
    const auto attachments = node.start();
    checkUnhealthy(*attachments, words);
    CHECK(node.hasWorker());
    CHECK(node.hasFiles());
    waitPorts(node, {"nic-0"});
    CHECK(attachments->withheldDevices() == 1);
    REQUIRE(attachments->list().size() == 1);
    CHECK_THAT(attachments->list()[0].state, StartsWith("withheld: ") && Contains(words) &&
                                                 Contains("vdpactl detach --force nic-0"));
    attachments->reconcile();
    CHECK_FALSE(attachments->detach(kOwner.key()));
    CHECK_THROWS_WITH(attachments->attach({next, "nic-0", {}, {}, {}}, kNever), Contains(words));
    CHECK_THROWS_WITH(attachments->check({{kOwner, "nic-0", {}, {}, {}}, "", 0}), Contains(words));
    CHECK_THROWS_WITH(attachments->release("nic-0", {}, false), Contains(words));
    attachments->setDevices({});
    attachments->setDevices({{"vdpa.io/nic", {}, {}, {{"nic-0", {}}}}});
    CHECK(node.hasFiles());
    CHECK(node.hasWorker());
    waitPorts(node, {"nic-0"});
  }
  const auto attachments = node.start();
  checkUnhealthy(*attachments, words);
  waitPorts(node, {"nic-0"});
  CHECK(attachments->release("nic-0", {}, true));
  node.checkFree();
  CHECK_FALSE(std::filesystem::exists(node.badRecord()));
  CHECK(attachments->deviceStates()[0].healthy);
  CHECK_FALSE(attachments->release("nic-0", {}, true));
  attachments->attach({next, "nic-0", {}, {}, {}}, kNever);
  CHECK(attachments->detach(next.key()));
}

TEST_CASE("a record that can't be read withholds nothing after the node was restarted") {
  const std::string content =
      GENERATE(as<std::string>(), "", std::string(100, '\0'), "{\"version\": 99}");
  const bool runDirGone = GENERATE(true, false);
  CAPTURE(content, runDirGone);
  const Node node;
  const Paths paths = node.paths();
  node.start()->attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  stopStray(paths.workerControl("nic-0"));
  stopStray(paths.switchControl("vdpa.io-nic"));
  writeFileAtomically(paths.owners() + "/nic-0.json", content, Durability::memory);
  if (runDirGone) std::filesystem::remove_all(paths.runDir());
  {
    const auto attachments = node.start(nullptr, "another boot");
    waitHealthy(*attachments);
    CHECK(attachments->withheldDevices() == 0);
    node.checkFree();
    CHECK_FALSE(std::filesystem::exists(node.badRecord()));
    attachments->attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  }
  // Of this boot.
  writeFileAtomically(paths.owners() + "/nic-0.json", content, Durability::memory);
  CHECK(node.start(nullptr, "another boot")->withheldDevices() == 1);
}

TEST_CASE("what a restart of the node has undone is not undone again when that took two tries") {
  const Node node;
  OwnerRecord record;
  record.bootId = "an earlier boot";
  record.phase = Phase::attached;
  record.attachment.deviceId = "nic-0";
  record.attachment.owner = kOwner;
  record.device.backend = BackendKind::kernel;
  record.found.vf.vlan = 7;
  record.found.vfChanges = {VfPart::vlan};
  OwnerRecords(node.paths().owners()).write(record, Durability::memory);
  unsigned written = 0;
  bool fail = true;
  auto options = node.options([&](std::string_view name) {
    if (fail && name == "directory emptied") throw std::runtime_error("input/output error");
  });
  options.hardware = HardwareChanges::Access{
      [](const std::string&) { return true; },
      [](const std::string&) {
        return Vf{"eth1", 0, "driver", VfValues()};
      },
      [&](const Vf&, VfPart, const VfValues&) { return ++written, 0; }, nullptr, nullptr};
  Attachments attachments(options, [] {});
  REQUIRE(attachments.list().size() == 1);
  CHECK(attachments.list()[0].state == "failed: detaching: input/output error");
  fail = false;
  attachments.reconcile();
  CHECK(attachments.list().empty());
  CHECK_FALSE(node.hasRecord());
  CHECK(written == 0);
}
