// Concurrent Attaches and Detaches, a person's detach, a cancelled call, or a failed worker.
#include <fmt/format.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/control_channel.h"
#include "common/event_thread.h"
#include "common/port_policy.h"
#include "common/port_settings.h"
#include "common/vlan_ranges.h"
#include "deviceplugin/datapath/attachments/attach_request.h"
#include "deviceplugin/datapath/attachments/device_table.h"
#include "deviceplugin/datapath/attachments/interface_claim.h"
#include "deviceplugin/datapath/hardware/vf.h"
#include "deviceplugin/datapath/hardware/vf_configuration.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/model/vf_values.h"
#include "deviceplugin/datapath/processes/worker_handle.h"
#include "deviceplugin/datapath/records/owner_record.h"
#include "tests/unit/datapath/control_program_path.h"
#include "tests/unit/datapath/fake_pf.h"
#include "tests/unit/datapath/node.h"
#include "tests/unit/datapath/temporary_directory.h"
#include "tests/unit/datapath/wait_until.h"
#include "tests/unit/discovery/sysfs_tree.h"
#include "tests/unit/mac_literal.h"

using namespace vdpa;
using namespace vdpa::datapath;
using namespace std::chrono_literals;
using Catch::Matchers::Contains;

TEST_CASE("a worker that died and came again is waited for like one that did not") {
  const TestNode node;
  const auto datapath = node.start();  // makes the directories
  OwnerRecord record;
  record.attachment.deviceId = "nic-0";
  const std::string engine = node.paths().runDir() + "/engine";
  EventThread thread;
  WorkerHandle worker(thread, node.options().programs, node.paths(), record,
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
  CHECK_THROWS_AS(worker.waitReady(now() + 20ms, true), RefusedError);  // its engine is missing
  writeFileAtomically(engine, "", Durability::memory);
  CHECK_NOTHROW(worker.waitReady(now() + 10s, true));
  worker.stop();
}

TEST_CASE("addresses that follow wait for a worker that dies meanwhile") {
  const TestNode node;
  const auto datapath = node.start();
  datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}, true}, kNever);
  waitWaiting(*datapath);
  ::kill(node.workerPid(), SIGKILL);
  waitUntil("the worker's end to be seen",
            [&] { return datapath->status.list().at(0).state != "waiting"; });
  CHECK(datapath->attachments.setAddresses(kOwner.key(), {{"10.0.0.3/24"}, {}}).state == "waiting");
  datapath->attachments.detach(kOwner.key());
}

TEST_CASE("an Attach whose addresses follow doesn't wait for the worker, setting them does") {
  const TestNode node;
  const auto datapath = node.start();
  datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}, true}, kNever);
  CHECK_FALSE(std::filesystem::exists(node.paths().device("nic-0") + "/device.json"));
  datapath->attachments.setAddresses(kOwner.key(), {{"10.0.0.3/24"}, {}});
  CHECK(datapath->status.list().at(0).state == "waiting");
  CHECK(std::filesystem::exists(node.paths().device("nic-0") + "/device.json"));

  datapath->attachments.detach(kOwner.key());
  datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}, true}, kNever);
  CHECK(datapath->attachments.detach(kOwner.key()));  // IPAM failed
  node.checkFree();
}

TEST_CASE("a record that can't be removed doesn't hold up the pod's end") {
  const TestNode node;
  const auto datapath = node.start();
  datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  const std::string record = node.paths().owners() + "/nic-0.json";
  std::filesystem::remove(record);
  std::filesystem::create_directory(record);  // neither written nor unlinked
  CHECK(datapath->attachments.detach(kOwner.key()));
  CHECK_FALSE(node.hasWorker());
  CHECK(node.ports().empty());
  REQUIRE(datapath->status.list().size() == 1);
  CHECK_THAT(datapath->status.list()[0].state, Contains("cannot remove " + record));
  CHECK_FALSE(datapath->status.deviceStates()[0].healthy);
  Owner next = kOwner;
  next.containerId = "c1";
  CHECK_THROWS_WITH(datapath->attachments.attach({next, "nic-0", {}, {}, {}}, kNever),
                    Contains("cannot remove " + record));
  std::filesystem::remove(record);
  datapath->attachments.detachOrphans();
  CHECK(datapath->status.list().empty());
  node.checkFree();
}

TEST_CASE("a device that could not be opened is tried again, but not while an Attach has it") {
  SysfsTree tree;
  tree.add({.address = "0000:65:00.2", .driver = "vp-vdpa"});
  tree.addVdpa("0000:65:00.2", "vdpa0", "vhost_vdpa", 3);
  const TemporaryDirectory directory;
  writeFileAtomically(directory.path() + "/vhost-vdpa-3", "", Durability::memory);
  const TestNode node;
  std::function<void()> onRecorded;
  auto options = node.options([&](std::string_view name) {
    if (name == "recorded" && onRecorded) onRecorded();
  });
  options.programs.worker = directory.path() + "/worker";
  options.programs.sysfs = tree.path();
  options.programs.dev = directory.path();
  Datapath datapath(options, [] {});
  DeviceConfig device;
  device.backend = BackendKind::kernel;
  device.vdpa = "vdpa0";
  datapath.offers.setDevices({{"vdpa.io/nic", {}, {}, {{"nic-0", device}}}});
  const AttachRequest request{kOwner, "nic-0", {}, {}, {}};
  CHECK_THROWS(datapath.attachments.attach(request, kNever));
  checkUnhealthy(datapath, "cannot start");

  SECTION("free") {
    datapath.offers.retryFailed();
    CHECK(datapath.status.deviceStates()[0].healthy);
  }
  SECTION("being attached") {
    std::filesystem::create_symlink(controlProgram(), options.programs.worker);
    onRecorded = [&] {
      datapath.offers.retryFailed();
      checkUnhealthy(datapath, "cannot start");
    };
    datapath.attachments.attach(request, kNever);
    CHECK(datapath.status.deviceStates()[0].healthy);
  }
}

TEST_CASE("a person takes a device only from the owner that was shown, and a living one by force") {
  const TestNode node;
  const auto datapath = node.start();
  CHECK_THROWS_WITH(datapath->attachments.release("nic-9", {}, true), Contains("no device nic-9"));
  CHECK_FALSE(datapath->attachments.release("nic-0", {}, true));
  datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  CHECK_THROWS_WITH(datapath->attachments.release("nic-0", {"c9", "net1"}, true),
                    Contains("different owner now: default/pod (container c0"));
  CHECK_THROWS_WITH(datapath->attachments.release("nic-0", kOwner.key(), false),
                    Contains("default/pod (container c0") && Contains("--force"));
  CHECK(datapath->status.list().size() == 1);
  CHECK(datapath->attachments.release("nic-0", kOwner.key(), true));
  node.checkFree();
}

TEST_CASE("a Detach waits for an Attach that runs, but not for ever") {
  DeviceTable table;
  table.setOffers({{"nic-0", {}}});
  const InterfaceClaim claim(table, kOwner, "nic-0");
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

TEST_CASE("a caller that has gone is not left with a device") {
  const TestNode node;
  const auto datapath = node.start();
  CHECK_THROWS_AS(datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}}, [] { return true; }),
                  RefusedError);
  CHECK(datapath->status.list().empty());
  node.checkFree();
}

TEST_CASE("a node is not drained while a pod is being attached") {
  const TestNode node;
  std::unique_ptr<Datapath> datapath;
  std::string refusal;
  datapath = node.start([&](std::string_view step) {
    if (step != "recorded") return;
    try {
      datapath->drain.run();
    } catch (const RefusedError& error) {
      refusal = error.what();
    }
  });
  datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  CHECK_THAT(refusal, Contains("nic-0 by container c0, which is being attached"));
  CHECK(datapath->status.list().size() == 1);
}

TEST_CASE("a Detach gives a VF back what it had") {
  const TestNode node(BackendKind::kernel);
  FakePf pf;
  auto options = node.options();
  options.hardware = VfConfiguration::Access{
      [](const std::string&) { return true; },
      [&](const std::string&) -> std::optional<Vf> { return pf.vf(); },
      [](const std::string&) { return "52:54:00:00:00:01"_mac; }, nullptr, nullptr};
  Datapath datapath(options, [] {});
  DeviceConfig device;
  device.backend = BackendKind::kernel;
  device.vdpa = "vdpa0";
  device.pciAddress = "0000:65:00.2";
  datapath.offers.setDevices({{"vdpa.io/nic", {}, {}, {{"nic-0", device}}}});
  PortSettings settings;
  settings.vlan = 100;
  datapath.attachments.attach({kOwner, "nic-0", settings, {}, {}}, kNever);
  CHECK(pf.values.vlan == 100);
  CHECK(datapath.attachments.detach(kOwner.key()));
  CHECK(pf.values.vlan == 0);
}

TEST_CASE("what only a software port can have is refused before hardware is touched") {
  const TestNode node(BackendKind::kernel);
  FakePf pf;
  auto options = node.options();
  options.hardware = VfConfiguration::Access{
      [](const std::string&) { return true; },
      [&](const std::string&) -> std::optional<Vf> { return pf.vf(); },
      [](const std::string&) { return "52:54:00:00:00:01"_mac; }, nullptr, nullptr};
  Datapath datapath(options, [] {});
  DeviceConfig device;
  device.backend = BackendKind::kernel;
  device.vdpa = "vdpa0";
  device.pciAddress = "0000:65:00.2";
  SECTION("the kernel's device behind a socket") {}
  SECTION("the kernel's character device") {
    device.attach = Attach::vhostVdpa;
  }
  SECTION("the kernel's netdev") {
    device.attach = Attach::virtioVdpa;
  }
  SECTION("DPDK's") {
    device = {};
    device.backend = BackendKind::dpdk;
    device.pciAddress = "0000:65:00.2";
    device.dpdkDriver = "ifc";
  }
  datapath.offers.setDevices({{"vdpa.io/nic", {}, {}, {{"nic-0", device}}}});
  PortSettings trunk, rate, burst;
  trunk.vlan = rate.vlan = 100;
  trunk.vlanTrunk = VlanRanges::parse("200-210");
  rate.maxRxRate = 5;
  burst.maxTxRate = 5;
  burst.burst = 64;
  const std::map<std::string, PortSettings> requests{
      {"vlanTrunk 200-210", trunk}, {"max_rx_rate 5", rate}, {"burst 64", burst}};
  for (const auto& [setting, settings] : requests) {
    try {
      datapath.attachments.attach({kOwner, "nic-0", settings, {}, {}}, kNever);
      FAIL("attached with " << setting);
    } catch (const RefusedError& error) {
      CHECK(error.refusal() == Refusal::invalidArgument);
      CHECK(error.what() == "cannot set up nic-0: " + setting +
                                " is only possible on a software port; remove it from the "
                                "network's configuration");
    }
    CHECK_FALSE(node.hasRecord());
  }
  CHECK(pf.values.vlan == 0);
}

TEST_CASE("a resource's policy: a storm limit changes at once, offloads with the next pod") {
  const TestNode node;
  const auto datapath = node.start();
  const auto offer = [&](const PortPolicy& policy) {
    datapath->offers.setDevices({{"vdpa.io/nic", {}, {}, {{"nic-0", {}}}, policy}});
    datapath->node.switches.settle();
  };
  const auto port = [&] {
    control::Request request;
    request.mutable_ports();
    const auto answer = askOnce(node.paths().switchControl("vdpa.io-nic"), std::move(request));
    REQUIRE(answer.ports().ports_size() == 1);
    return answer.ports().ports(0).port();
  };
  const auto hasOption = [&](const std::string& option) {
    const auto text = readFile(fmt::format("/proc/{}/cmdline", node.workerPid()));
    return text.find(option) != std::string::npos;
  };
  datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  CHECK(port().offloads());
  CHECK(port().storm_limit() == kDefaultStormLimit);
  CHECK_FALSE(hasOption("--offloads"));

  offer({false, 7});
  CHECK(port().offloads());
  CHECK(port().storm_limit() == 7);
  CHECK(datapath->attachments.detach(kOwner.key()));
  datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  CHECK_FALSE(port().offloads());
  CHECK(port().storm_limit() == 7);
  CHECK(hasOption("--offloads=false"));
  CHECK(readFile(node.paths().owners() + "/nic-0.json").find("\"stormLimit\"") !=
        std::string::npos);
  CHECK(datapath->attachments.detach(kOwner.key()));
}
