// A start that finds unreadable records, unstoppable processes, or attachments to keep.
#include <signal.h>

#include <filesystem>
#include <optional>
#include <stdexcept>
#include <vector>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "deviceplugin/datapath/attachments/datapath.h"
#include "deviceplugin/datapath/hardware/vf.h"
#include "deviceplugin/datapath/hardware/vf_configuration.h"
#include "deviceplugin/datapath/model/vf_values.h"
#include "deviceplugin/datapath/processes/supervised_process.h"
#include "deviceplugin/datapath/records/owner_record.h"
#include "tests/unit/datapath/fake_pf.h"
#include "tests/unit/datapath/node.h"

using namespace vdpa;
using namespace vdpa::datapath;
using namespace std::chrono_literals;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

namespace {

// Until the result is removed, it is unknown whether the worker of nic-0 runs.
std::filesystem::path hideWorker(const TestNode& node) {
  const auto lock =
      std::filesystem::path(node.paths().workerControl("nic-0")).replace_extension(".lock");
  REQUIRE(std::filesystem::remove(lock));
  std::filesystem::create_directory(lock);
  return lock;
}

}  // namespace

TEST_CASE("a worker that can't be found out about at the start is not forgotten later") {
  const TestNode node;
  CHECK(dieAt(node, "detaching", [](Datapath& datapath) {
    datapath.attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
    datapath.attachments.detach(kOwner.key());
  }));
  const auto lock = hideWorker(node);
  const auto datapath = node.start();
  datapath->attachments.detachOrphans();
  CHECK(node.hasRecord());
  CHECK(node.hasWorker());
  REQUIRE(datapath->status.list().size() == 1);
  CHECK_THAT(datapath->status.list()[0].state,
             StartsWith("failed: detaching: cannot open " + lock.string()));
  REQUIRE(std::filesystem::remove(lock));
  datapath->attachments.detachOrphans();
  node.checkFree();
}

TEST_CASE("a worker that the start could not end") {
  const TestNode node;
  node.start()->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  OwnerRecordStore(node.paths().owners()).remove("nic-0");
  const int stray = node.workerPid();
  const auto lock = hideWorker(node);
  const auto datapath = node.start();
  waitHealthy(*datapath);

  SECTION("is not the next pod's") {
    CHECK_THROWS_WITH(datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever),
                      Contains("cannot open " + lock.string()));
    REQUIRE(std::filesystem::remove(lock));
    datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
    CHECK(node.workerPid() != stray);
    CHECK(datapath->attachments.detach(kOwner.key()));
    node.checkFree();
  }
  SECTION("is told of by a drain, and ended by the next") {
    const auto first = datapath->drain.run();
    REQUIRE(first.left.size() == 1);
    CHECK_THAT(first.left[0], StartsWith("vdpa-worker of nic-0: cannot open " + lock.string()));
    CHECK(first.ended == std::vector<std::string>{"vdpa-switch of vdpa.io/nic"});
    CHECK(node.hasWorker());
    REQUIRE(std::filesystem::remove(lock));
    const auto second = datapath->drain.run();
    CHECK(second.left.empty());
    CHECK(second.ended == std::vector<std::string>{"vdpa-worker of nic-0"});
    CHECK_FALSE(node.hasWorker());
  }
}

TEST_CASE("a device whose record can't be read is withheld, and what serves it runs on") {
  const TestNode node;
  node.start()->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  writeFileAtomically(node.paths().owners() + "/nic-0.json", "{\"version\": 1", Durability::memory);
  const std::string words = node.badRecord() + " cannot be used";
  Owner next = kOwner;
  next.containerId = "c1";
  for (int start = 0; start < 2; ++start) {
    // An earlier version did not record the boot ID.
    if (start == 1) std::filesystem::remove(node.paths().bootMarker());
    const auto datapath = node.start();
    checkUnhealthy(*datapath, words);
    CHECK(node.hasWorker());
    CHECK(node.hasFiles());
    waitPorts(node, {"nic-0"});
    CHECK(datapath->status.withheldDevices() == 1);
    REQUIRE(datapath->status.list().size() == 1);
    CHECK_THAT(datapath->status.list()[0].state, StartsWith("withheld: ") && Contains(words) &&
                                                     Contains("vdpactl detach --force nic-0"));
    datapath->attachments.detachOrphans();
    CHECK_FALSE(datapath->attachments.detach(kOwner.key()));
    CHECK_THROWS_WITH(datapath->attachments.attach({next, "nic-0", {}, {}, {}}, kNever),
                      Contains(words));
    CHECK_THROWS_WITH(datapath->status.check({{kOwner, "nic-0", {}, {}, {}}, {}, 0}),
                      Contains(words));
    CHECK_THROWS_WITH(datapath->attachments.release("nic-0", {}, false), Contains(words));
    datapath->offers.setDevices({});
    datapath->offers.setDevices({{"vdpa.io/nic", {}, {}, {{"nic-0", {}}}}});
    CHECK(node.hasFiles());
    CHECK(node.hasWorker());
    waitPorts(node, {"nic-0"});
  }
  const auto datapath = node.start();
  checkUnhealthy(*datapath, words);
  waitPorts(node, {"nic-0"});
  CHECK(datapath->attachments.release("nic-0", {}, true));
  node.checkFree();
  CHECK_FALSE(std::filesystem::exists(node.badRecord()));
  CHECK(datapath->status.deviceStates()[0].healthy);
  CHECK_FALSE(datapath->attachments.release("nic-0", {}, true));
  datapath->attachments.attach({next, "nic-0", {}, {}, {}}, kNever);
  CHECK(datapath->attachments.detach(next.key()));
}

TEST_CASE("a record that can't be read withholds nothing after the node was restarted") {
  const std::string content =
      GENERATE(as<std::string>(), "", std::string(100, '\0'), "{\"version\": 99}");
  const bool runDirGone = GENERATE(true, false);
  CAPTURE(content, runDirGone);
  const TestNode node;
  const Paths paths = node.paths();
  node.start()->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  stopStray(paths.workerControl("nic-0"));
  stopStray(paths.switchControl("vdpa.io-nic"));
  writeFileAtomically(paths.owners() + "/nic-0.json", content, Durability::memory);
  if (runDirGone) std::filesystem::remove_all(paths.runDir());
  {
    const auto datapath = node.start(nullptr, "another boot");
    waitHealthy(*datapath);
    CHECK(datapath->status.withheldDevices() == 0);
    node.checkFree();
    CHECK_FALSE(std::filesystem::exists(node.badRecord()));
    datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  }
  // Of this boot.
  writeFileAtomically(paths.owners() + "/nic-0.json", content, Durability::memory);
  CHECK(node.start(nullptr, "another boot")->status.withheldDevices() == 1);
}

TEST_CASE("what a restart of the node has undone is not undone again when that took two tries") {
  const TestNode node;
  OwnerRecord record;
  record.bootId = "an earlier boot";
  record.phase = Phase::attached;
  record.attachment.deviceId = "nic-0";
  record.attachment.owner = kOwner;
  record.device.backend = BackendKind::kernel;
  record.found.vf.vlan = 7;
  record.found.vfChanges = {VfPart::vlan};
  OwnerRecordStore(node.paths().owners()).write(record, Durability::memory);
  FakePf pf;
  bool fail = true;
  auto options = node.options([&](std::string_view name) {
    if (fail && name == "directory emptied") throw std::runtime_error("input/output error");
  });
  options.hardware = VfConfiguration::Access{
      [](const std::string&) { return true; },
      [&](const std::string&) -> std::optional<Vf> { return pf.vf(); }, nullptr, nullptr};
  Datapath datapath(options, [] {});
  REQUIRE(datapath.status.list().size() == 1);
  CHECK(datapath.status.list()[0].state == "failed: detaching: input/output error");
  fail = false;
  datapath.attachments.detachOrphans();
  CHECK(datapath.status.list().empty());
  CHECK_FALSE(node.hasRecord());
  CHECK(pf.sets == 0);
}
