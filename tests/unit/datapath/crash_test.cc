// A crash at every step of an Attach and of a Detach: the next start finds an owner that has its
// device whole, or nobody, and nothing is left over.
#include <signal.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <thread>

#include "common/atomic_file.h"
#include "deviceplugin/datapath/attachments.h"
#include "deviceplugin/datapath/refused_error.h"
#include "tests/unit/datapath/temporary_directory.h"
#include "tests/unit/discovery/sysfs_tree.h"

using namespace vdpa;
using namespace std::chrono_literals;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

namespace {

const Owner kOwner{"c0", "net1", "/proc/self/ns/net", "fast", "default", "pod", "uid"};

class Node {
 public:
  // What nic-0 is there: a port of a switch, or a device of the kernel's.
  explicit Node(Backend backend = Backend::software) : backend_(backend) {
    if (backend != Backend::kernel) return;
    tree_.add({.address = "0000:65:00.2", .driver = "vp-vdpa"});
    tree_.addVdpa("0000:65:00.2", "vdpa0", "vhost_vdpa", 3);
    writeFileAtomically(tree_.path() + "/vhost-vdpa-3", "", Durability::memory);
  }
  ~Node() {
    // Whatever the test left running.
    stopStray(paths().workerControl("nic-0"));
    stopStray(paths().switchControl("vdpa.io-nic"));
  }

  Paths paths() const { return {directory_.path() + "/run", directory_.path() + "/state"}; }

  Attachments::Options options(std::function<void(std::string_view)> onStep = nullptr,
                               const std::string& bootId = "boot") const {
    Programs programs;
    programs.worker = programs.vswitch = CONTROL_PROGRAM;
    if (backend_ == Backend::kernel) programs.sysfs = programs.dev = tree_.path();
    return {programs, paths(), bootId, [] { return std::vector<PodDevice>(); },
            nullptr,  nullptr, 4s,     std::move(onStep),
            0s};
  }

  std::unique_ptr<Attachments> start(std::function<void(std::string_view)> onStep = nullptr,
                                     const std::string& bootId = "boot") const {
    auto attachments = std::make_unique<Attachments>(options(std::move(onStep), bootId), [] {});
    DeviceConfig device;
    device.backend = backend_;
    if (backend_ == Backend::kernel) device.vdpa = "vdpa0";
    attachments->setDevices({{"vdpa.io/nic", {}, {}, {{"nic-0", device}}}});
    return attachments;
  }

  bool hasRecord() const { return std::filesystem::exists(paths().owners() + "/nic-0.json"); }
  bool hasFiles() const { return !std::filesystem::is_empty(paths().device("nic-0")); }
  bool hasWorker() const { return std::filesystem::exists(paths().workerControl("nic-0")); }
  std::vector<std::string> ports() const {
    if (backend_ == Backend::kernel) return {};
    ControlClient client(paths().switchControl("vdpa.io-nic"), nullptr, nullptr);
    return client.call("hello").at("ports").get<std::vector<std::string>>();
  }
  int workerPid() const {
    ControlClient client(paths().workerControl("nic-0"), nullptr, nullptr);
    return client.call("hello").at("pid").get<int>();
  }
  std::string badRecord() const { return paths().owners() + "/nic-0.json.bad"; }
  void checkFree() const {
    CHECK_FALSE(hasRecord());
    CHECK_FALSE(hasFiles());
    CHECK_FALSE(hasWorker());
    CHECK(ports().empty());
  }

 private:
  const Backend backend_;
  SysfsTree tree_;
  TemporaryDirectory directory_;
};

void waitWaiting(const Attachments& attachments) {
  for (int i = 0; i < 2000; ++i) {
    const auto list = attachments.list();
    if (list.size() == 1 && list[0].state == "waiting") return;
    std::this_thread::sleep_for(5ms);
  }
  FAIL("the worker did not come up");
}

void waitHealthy(const Attachments& attachments) {
  for (int i = 0; i < 2000; ++i) {
    const auto states = attachments.deviceStates();
    if (states.size() == 1 && states[0].healthy) return;
    std::this_thread::sleep_for(5ms);
  }
  FAIL("the switch did not come up");
}

void checkUnhealthy(const Attachments& attachments, const std::string& words) {
  const auto states = attachments.deviceStates();
  REQUIRE(states.size() == 1);
  CHECK_FALSE(states[0].healthy);
  CHECK_THAT(states[0].reason, Contains(words));
}

void waitPorts(const Node& node, const std::vector<std::string>& expected) {
  for (int i = 0; i < 2000; ++i) {
    try {
      if (node.ports() == expected) return;
    } catch (const std::system_error&) {
      // Between two switches.
    }
    std::this_thread::sleep_for(5ms);
  }
  FAIL("the switch has other ports");
}

const auto kNever = [] { return false; };

// Until what is returned is removed, nobody can tell whether the worker of nic-0 runs.
std::filesystem::path hideWorker(const Node& node) {
  const auto lock =
      std::filesystem::path(node.paths().workerControl("nic-0")).replace_extension(".lock");
  REQUIRE(std::filesystem::remove(lock));
  std::filesystem::create_directory(lock);
  return lock;
}

// What another process does until it is killed at `step`. True if it got there.
bool dieAt(const Node& node, const std::string& step,
           const std::function<void(Attachments&)>& action) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      const auto attachments = node.start([&](std::string_view name) {
        if (name == step) ::_exit(42);
      });
      action(*attachments);
    } catch (...) {
    }
    ::_exit(1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 42;
}

}  // namespace

TEST_CASE("a crash at every step of an Attach") {
  const Backend backend = GENERATE(Backend::software, Backend::kernel);
  const std::string step = GENERATE("worker started", "recorded", "directory", "settings", "engine",
                                    "attached", "files", "worker");
  // Then the next start goes on with it: the DEL that follows a failed ADD ends it.
  const bool complete = step == "attached" || step == "files" || step == "worker";
  const bool goesOn = complete || (backend == Backend::software && step != "worker started");
  INFO(nameOf(backend) << ", " << step);
  const Node node(backend);
  REQUIRE(dieAt(node, step, [](Attachments& attachments) {
    attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  }));
  {
    const auto attachments = node.start();
    waitHealthy(*attachments);
    if (goesOn) {
      waitWaiting(*attachments);
      CHECK(attachments->check({{kOwner, "nic-0", {}, {}, {}}, "", 0}) ==
            std::vector<std::string>{"the socket " + node.paths().podSocket("nic-0") +
                                     " is missing"});  // the stand-in's is a plain file
    } else {
      CHECK(attachments->list().empty());
      node.checkFree();
    }
    // Multus sends a DEL for what failed, then a new ADD.
    CHECK(attachments->detach(kOwner.key()) == goesOn);
    node.checkFree();
    CHECK(attachments->attach({kOwner, "nic-0", {}, {}, {}}, kNever).attachment.deviceId ==
          "nic-0");
    CHECK(attachments->detach(kOwner.key()));
  }
  node.checkFree();
}

TEST_CASE("a crash while the worker starts leaves none") {
  const std::chrono::microseconds life = GENERATE(0us, 200us, 500us, 1ms, 3ms);
  for (int round = 0; round < 5; ++round) {
    const Node node;
    REQUIRE(dieAt(node, "never", [&](Attachments& attachments) {
      std::jthread end([life] {
        std::this_thread::sleep_for(life);
        ::_exit(42);
      });
      attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
      ::_exit(42);
    }));
    const auto attachments = node.start();
    waitHealthy(*attachments);
    attachments->detach(kOwner.key());
    node.checkFree();
    CHECK(workersBelow(node.paths()).empty());
  }
}

TEST_CASE("a crash at every step of a Detach") {
  const std::string step = GENERATE("detaching", "worker stopped", "engine stopped",
                                    "directory emptied", "record removed");
  INFO(step);
  const Node node;
  REQUIRE(dieAt(node, step, [](Attachments& attachments) {
    attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
    attachments.detach(kOwner.key());
  }));
  const auto attachments = node.start();
  waitHealthy(*attachments);
  CHECK(attachments->list().empty());
  node.checkFree();
  CHECK_FALSE(attachments->detach(kOwner.key()));
  attachments->attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  attachments->detach(kOwner.key());
}

TEST_CASE("a crash between an Attach and the addresses that follow") {
  const Backend backend = GENERATE(Backend::software, Backend::kernel);
  const Node node(backend);
  REQUIRE(dieAt(node, "between", [&](Attachments& attachments) {
    attachments.attach({kOwner, "nic-0", {}, {}, {}, true}, kNever);
    ::_exit(42);
  }));
  const auto attachments = node.start();
  waitHealthy(*attachments);
  const auto live = attachments->setAddresses(kOwner.key(), {{"10.0.0.3/24"}, {}});
  CHECK(live.attachment.ips == std::vector<std::string>{"10.0.0.3/24"});
  CHECK(live.state == "waiting");
  CHECK(attachments->detach(kOwner.key()));
  node.checkFree();
}

TEST_CASE("addresses that follow wait for a worker that dies meanwhile") {
  const Node node;
  const auto attachments = node.start();
  attachments->attach({kOwner, "nic-0", {}, {}, {}, true}, kNever);
  waitWaiting(*attachments);
  ::kill(node.workerPid(), SIGKILL);
  while (attachments->list().at(0).state == "waiting") std::this_thread::sleep_for(1ms);
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

TEST_CASE("a failure at every step of an Attach is undone at once") {
  const std::string step =
      GENERATE("worker started", "recorded", "directory", "engine", "attached", "files", "worker");
  INFO(step);
  const Node node;
  bool fail = true;
  const auto attachments = node.start([&](std::string_view name) {
    if (fail && name == step) throw std::runtime_error("no space left on device");
  });
  CHECK_THROWS_WITH(attachments->attach({kOwner, "nic-0", {}, {}, {}}, kNever),
                    "no space left on device");
  CHECK(attachments->list().empty());
  node.checkFree();
  fail = false;
  attachments->attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  waitWaiting(*attachments);
  attachments->detach(kOwner.key());
}

TEST_CASE("a Detach that failed half-way ends with the next one") {
  const std::string step =
      GENERATE("detaching", "worker stopped", "engine stopped", "directory emptied");
  INFO(step);
  const Node node;
  bool fail = true;
  const auto attachments = node.start([&](std::string_view name) {
    if (fail && name == step) throw std::runtime_error("input/output error");
  });
  attachments->attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  CHECK_THROWS_WITH(attachments->detach(kOwner.key()), "input/output error");
  fail = false;
  CHECK(attachments->detach(kOwner.key()));
  node.checkFree();
}

TEST_CASE("what can't be undone at once stays with its owner until it can") {
  const std::string step =
      GENERATE("detaching", "worker stopped", "engine stopped", "directory emptied");
  INFO(step);
  const Node node;
  bool failAttach = true, failUndo = true;
  const auto attachments = node.start([&](std::string_view name) {
    if (failAttach && name == "files") throw std::runtime_error("no space left on device");
    if (failUndo && name == step) throw std::runtime_error("input/output error");
  });
  waitHealthy(*attachments);
  CHECK_THROWS_WITH(attachments->attach({kOwner, "nic-0", {}, {}, {}}, kNever),
                    "no space left on device");
  REQUIRE(attachments->list().size() == 1);
  CHECK(attachments->list()[0].state == "failed: detaching: input/output error");
  CHECK(
      attachments->deviceStates()[0].reason ==
      "it could not be taken back from default/pod (container c0, interface net1), which is tried "
      "again: input/output error");
  attachments->reconcile();  // tries, and fails again
  CHECK(attachments->list()[0].outlook == "abandoned: being detached");
  CHECK(attachments->reconciliationCounts().detached == 0);

  failAttach = failUndo = false;
  SECTION("reconciliation frees it") {
    attachments->reconcile();
    CHECK(attachments->reconciliationCounts().detached == 1);
    CHECK(attachments->list().empty());
    CHECK(attachments->deviceStates()[0].healthy);
  }
  SECTION("the next Attach frees it") {
    Owner next = kOwner;
    next.containerId = "c1";
    attachments->attach({next, "nic-0", {}, {}, {}}, kNever);
    CHECK(attachments->list()[0].attachment.owner.containerId == "c1");
    CHECK(attachments->deviceStates()[0].healthy);
    CHECK(attachments->detach(next.key()));
  }
  SECTION("a Detach frees it") {
    CHECK(attachments->detach(kOwner.key()));
  }
  SECTION("a person frees it, without force") {
    CHECK(attachments->release("nic-0", kOwner.key(), false));
  }
  node.checkFree();
}

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
  record.device.backend = Backend::kernel;
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
  device.backend = Backend::kernel;
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
    std::filesystem::create_symlink(CONTROL_PROGRAM, options.programs.worker);
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

TEST_CASE("a failure at every step of setting addresses leaves those before") {
  const std::string step = GENERATE("addresses recorded", "addresses set", "addresses told");
  INFO(step);
  const Node node;
  bool fail = true;
  const auto attachments = node.start([&](std::string_view name) {
    if (fail && name == step) throw std::runtime_error("no space left on device");
  });
  const auto attached = attachments->attach({kOwner, "nic-0", {}, {"10.0.0.2/24"}, {}}, kNever);
  const std::string told = readFile(node.paths().device("nic-0") + "/device.json");
  CHECK_THROWS_WITH(attachments->setAddresses(kOwner.key(), {{"10.0.0.3/24"}, {}}),
                    "no space left on device");
  CHECK(attachments->list().at(0).attachment.ips == attached.attachment.ips);
  CHECK(readFile(node.paths().device("nic-0") + "/device.json") == told);
  CHECK(readFile(node.paths().owners() + "/nic-0.json").find("10.0.0.3") == std::string::npos);
  fail = false;
  const auto after = attachments->setAddresses(kOwner.key(), {{"10.0.0.3/24"}, {}});
  CHECK(after.attachment.ips == std::vector<std::string>{"10.0.0.3/24"});
  attachments->detach(kOwner.key());
  CHECK_THROWS_AS(attachments->setAddresses(kOwner.key(), {}), RefusedError);
}

TEST_CASE("a caller that has gone is not left with a device") {
  const Node node;
  const auto attachments = node.start();
  CHECK_THROWS_AS(attachments->attach({kOwner, "nic-0", {}, {}, {}}, [] { return true; }),
                  RefusedError);
  CHECK(attachments->list().empty());
  node.checkFree();
}
