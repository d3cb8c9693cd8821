// Attaches and Detaches that meet each other, a person, a gone caller, or a worker in error.
#include <signal.h>

#include "common/atomic_file.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "tests/unit/datapath/control_program_path.h"
#include "tests/unit/datapath/node.h"
#include "tests/unit/datapath/wait_until.h"

using namespace vdpa;
using namespace vdpa::datapath;
using namespace std::chrono_literals;
using Catch::Matchers::Contains;

TEST_CASE("a worker that died and came again is waited for like one that did not") {
  const Node node;
  const auto attachments = node.start();  // makes the directories
  OwnerRecord record;
  record.attachment.deviceId = "nic-0";
  const std::string engine = node.paths().runDir() + "/engine";
  WorkerHandle worker(node.options().programs, node.paths(), record,
                      EngineAddress::vhostUser(engine), WorkerHandle::Begin::start, [] {});
  const auto waitUp = [&](unsigned deaths) {
    waitUntil("a worker that is up", [&] {
      const auto status = worker.status();
      return status.up && status.deaths == deaths;
    });
  };
  waitUp(0);
  ::kill(node.workerPid(), SIGKILL);
  waitUp(1);
  const auto now = [] { return std::chrono::steady_clock::now(); };
  CHECK_THROWS_AS(worker.waitReady(now() + 20ms, true), RefusedError);  // its engine isn't there
  writeFileAtomically(engine, "", Durability::memory);
  CHECK_NOTHROW(worker.waitReady(now() + 10s, true));
  worker.stop();
}

TEST_CASE("addresses that follow wait for a worker that dies meanwhile") {
  const Node node;
  const auto attachments = node.start();
  attachments->attach({kOwner, "nic-0", {}, {}, {}, true}, kNever);
  waitWaiting(*attachments);
  ::kill(node.workerPid(), SIGKILL);
  waitUntil("the worker's end to be seen",
            [&] { return attachments->list().at(0).state != "waiting"; });
  CHECK(attachments->setAddresses(kOwner.key(), {{"10.0.0.3/24"}, {}}).state == "waiting");
  attachments->detach(kOwner.key());
}

TEST_CASE("an Attach whose addresses follow doesn't wait for the worker, setting them does") {
  const Node node;
  const auto attachments = node.start();
  attachments->attach({kOwner, "nic-0", {}, {}, {}, true}, kNever);
  CHECK_FALSE(std::filesystem::exists(node.paths().device("nic-0") + "/device.json"));
  attachments->setAddresses(kOwner.key(), {{"10.0.0.3/24"}, {}});
  CHECK(attachments->list().at(0).state == "waiting");
  CHECK(std::filesystem::exists(node.paths().device("nic-0") + "/device.json"));

  attachments->detach(kOwner.key());
  attachments->attach({kOwner, "nic-0", {}, {}, {}, true}, kNever);
  CHECK(attachments->detach(kOwner.key()));  // IPAM failed
  node.checkFree();
}

TEST_CASE("a record that can't be removed doesn't hold up the pod's end") {
  const Node node;
  const auto attachments = node.start();
  attachments->attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  const std::string record = node.paths().owners() + "/nic-0.json";
  std::filesystem::remove(record);
  std::filesystem::create_directory(record);  // neither written nor unlinked
  CHECK(attachments->detach(kOwner.key()));
  CHECK_FALSE(node.hasWorker());
  CHECK(node.ports().empty());
  REQUIRE(attachments->list().size() == 1);
  CHECK_THAT(attachments->list()[0].state, Contains("cannot remove " + record));
  CHECK_FALSE(attachments->deviceStates()[0].healthy);
  Owner next = kOwner;
  next.containerId = "c1";
  CHECK_THROWS_WITH(attachments->attach({next, "nic-0", {}, {}, {}}, kNever),
                    Contains("cannot remove " + record));
  std::filesystem::remove(record);
  attachments->reconcile();
  CHECK(attachments->list().empty());
  node.checkFree();
}

TEST_CASE("a device that could not be opened is tried again, but not while an Attach has it") {
  SysfsTree tree;
  tree.add({.address = "0000:65:00.2", .driver = "vp-vdpa"});
  tree.addVdpa("0000:65:00.2", "vdpa0", "vhost_vdpa", 3);
  const TemporaryDirectory directory;
  writeFileAtomically(directory.path() + "/vhost-vdpa-3", "", Durability::memory);
  const Node node;
  std::function<void()> onRecorded;
  auto options = node.options([&](std::string_view name) {
    if (name == "recorded" && onRecorded) onRecorded();
  });
  options.programs.worker = directory.path() + "/worker";
  options.programs.sysfs = tree.path();
  options.programs.dev = directory.path();
  Attachments attachments(options, [] {});
  DeviceConfig device;
  device.backend = BackendKind::kernel;
  device.vdpa = "vdpa0";
  attachments.setDevices({{"vdpa.io/nic", {}, {}, {{"nic-0", device}}}});
  const AttachRequest request{kOwner, "nic-0", {}, {}, {}};
  CHECK_THROWS(attachments.attach(request, kNever));
  checkUnhealthy(attachments, "cannot start");

  SECTION("free") {
    attachments.retryFailed();
    CHECK(attachments.deviceStates()[0].healthy);
  }
  SECTION("being attached") {
    std::filesystem::create_symlink(controlProgram(), options.programs.worker);
    onRecorded = [&] {
      attachments.retryFailed();
      checkUnhealthy(attachments, "cannot start");
    };
    attachments.attach(request, kNever);
    CHECK(attachments.deviceStates()[0].healthy);
  }
}

TEST_CASE("a person takes a device only from the owner that was shown, and a living one by force") {
  const Node node;
  const auto attachments = node.start();
  CHECK_THROWS_WITH(attachments->release("nic-9", {}, true), Contains("no device nic-9"));
  CHECK_FALSE(attachments->release("nic-0", {}, true));
  attachments->attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  CHECK_THROWS_WITH(attachments->release("nic-0", {"c9", "net1"}, true),
                    Contains("another owner by now: default/pod (container c0"));
  CHECK_THROWS_WITH(attachments->release("nic-0", kOwner.key(), false),
                    Contains("default/pod (container c0") && Contains("--force"));
  CHECK(attachments->list().size() == 1);
  CHECK(attachments->release("nic-0", kOwner.key(), true));
  node.checkFree();
}

TEST_CASE("a Detach waits for an Attach that runs, but not for ever") {
  DeviceTable table;
  table.setOffers({{"nic-0", {}}});
  const DeviceTable::Reservation reservation(table, kOwner, "nic-0");
  CHECK_THROWS_AS(table.leaseAttached(kOwner.key(), DeviceTable::Clock::now()), RefusedError);
  CHECK(table.calledOff(kOwner.key()));
}

TEST_CASE("the lease of a device that was forgotten doesn't end that of one that came back") {
  DeviceTable table;
  const auto now = [] { return DeviceTable::Clock::now(); };
  table.setOffers({{"nic-0", {}}});
  std::optional<DeviceTable::Lease> second;
  {
    const auto first = table.lease("nic-0", now());
    OwnerRecord record;
    record.attachment.deviceId = "nic-0";
    table.setAttachment(*first, record, nullptr);
    CHECK(table.setOffers({}).empty());
    CHECK(table.clearAttachment(*first));
    table.setOffers({{"nic-0", {}}});
    second.emplace(*table.lease("nic-0", now()));
  }
  CHECK_FALSE(table.lease("nic-0", now()));
  CHECK(table.inUse("nic-0"));
  second.reset();
  CHECK(table.lease("nic-0", now()));
}

TEST_CASE("of two Attaches that run and ask for the same MAC one gets it") {
  DeviceTable table;
  table.setOffers({{"nic-0", {}}, {"nic-1", {}}});
  Owner other = kOwner;
  other.containerId = "c1";
  other.podName = "another";
  const auto attachmentOf = [](DeviceTable::Reservation& reservation, const Owner& owner,
                               const std::string& id) {
    Attachment attachment;
    attachment.deviceId = id;
    attachment.resource = "vdpa.io/nic";
    attachment.owner = owner;
    attachment.port.mac = reservation.takeMac("02:00:00:00:00:01");
    return attachment;
  };
  DeviceTable::Reservation second(table, other, "nic-1");
  const auto later = attachmentOf(second, other, "nic-1");
  {
    DeviceTable::Reservation first(table, kOwner, "nic-0");
    first.holdMac(attachmentOf(first, kOwner, "nic-0"));
    CHECK_THROWS_WITH(second.holdMac(later), Contains("is that of default/pod (container c0"));
  }
  CHECK_NOTHROW(second.holdMac(later));
}

TEST_CASE("a caller that has gone is not left with a device") {
  const Node node;
  const auto attachments = node.start();
  CHECK_THROWS_AS(attachments->attach({kOwner, "nic-0", {}, {}, {}}, [] { return true; }),
                  RefusedError);
  CHECK(attachments->list().empty());
  node.checkFree();
}

TEST_CASE("a node is not drained while a pod is being attached") {
  const Node node;
  std::unique_ptr<Attachments> attachments;
  std::string refusal;
  attachments = node.start([&](std::string_view step) {
    if (step != "recorded") return;
    try {
      attachments->drain();
    } catch (const RefusedError& error) {
      refusal = error.what();
    }
  });
  attachments->attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  CHECK_THAT(refusal, Contains("nic-0 by container c0, which is being attached"));
  CHECK(attachments->list().size() == 1);
}

TEST_CASE("a Detach gives a VF back what it had") {
  const Node node(BackendKind::kernel);
  VfValues values;
  auto options = node.options();
  options.hardware = HardwareChanges::Access{[](const std::string&) { return true; },
                                             [&](const std::string&) -> std::optional<Vf> {
                                               return Vf{"eth1", 2, "driver", values};
                                             },
                                             [&](const Vf&, VfPart part, const VfValues& wanted) {
                                               if (part == VfPart::vlan) values.vlan = wanted.vlan;
                                               return 0;
                                             },
                                             [](const std::string&) { return "52:54:00:00:00:01"; },
                                             nullptr,
                                             nullptr};
  Attachments attachments(options, [] {});
  DeviceConfig device;
  device.backend = BackendKind::kernel;
  device.vdpa = "vdpa0";
  device.pciAddress = "0000:65:00.2";
  attachments.setDevices({{"vdpa.io/nic", {}, {}, {{"nic-0", device}}}});
  Settings settings;
  settings.vlan = 100;
  attachments.attach({kOwner, "nic-0", settings, {}, {}}, kNever);
  CHECK(values.vlan == 100);
  CHECK(attachments.detach(kOwner.key()));
  CHECK(values.vlan == 0);
}
