// A crash, or a failure, at every step of an Attach and of a Detach: after the next start, the
// device either has its owner completely or is free, and nothing is left over.
#include <chrono>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/paths.h"
#include "deviceplugin/datapath/attachments/datapath.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "tests/unit/datapath/node.h"

using namespace vdpa;
using namespace vdpa::datapath;
using namespace std::chrono_literals;

TEST_CASE("a crash at every step of an Attach") {
  const BackendKind backend = GENERATE(BackendKind::software, BackendKind::kernel);
  const std::string step = GENERATE("recorded", "directory", "settings", "engine", "worker started",
                                    "port", "worker", "files", "attached");
  // Then the next start resumes it: the DEL that follows a failed ADD detaches it.
  const bool goesOn = step == "attached";
  INFO(nameOf(backend) << ", " << step);
  const TestNode node(backend);
  REQUIRE(dieAt(node, step, [](Datapath& datapath) {
    datapath.attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  }));
  {
    const auto datapath = node.start();
    waitHealthy(*datapath);
    if (goesOn) {
      waitWaiting(*datapath);
      CHECK(datapath->status.check({{kOwner, "nic-0", {}, {}, {}}, {}, 0}).differences ==
            std::vector<std::string>{"the socket " + node.paths().podSocket("nic-0") +
                                     " is missing"});  // the stand-in's is a plain file
    } else {
      CHECK(datapath->status.list().empty());
      node.checkFree();
    }
    // After a failure, Multus sends a DEL, then a new ADD.
    CHECK(datapath->attachments.detach(kOwner.key()) == goesOn);
    node.checkFree();
    CHECK(datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever).attachment.deviceId ==
          "nic-0");
    CHECK(datapath->attachments.detach(kOwner.key()));
  }
  node.checkFree();
}

TEST_CASE("a crash while the worker starts leaves none") {
  const std::chrono::microseconds life = GENERATE(0us, 200us, 500us, 1ms, 3ms);
  for (int round = 0; round < 5; ++round) {
    const TestNode node;
    REQUIRE(dieAt(node, "never", [&](Datapath& datapath) {
      std::jthread end([life] {
        std::this_thread::sleep_for(life);
        ::_exit(42);
      });
      datapath.attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
      ::_exit(42);
    }));
    const auto datapath = node.start();
    waitHealthy(*datapath);
    datapath->attachments.detach(kOwner.key());
    node.checkFree();
    CHECK(workersBelow(node.paths()).empty());
  }
}

TEST_CASE("a crash at every step of a Detach") {
  const std::string step = GENERATE("detaching", "worker stopped", "engine stopped",
                                    "directory emptied", "record removed");
  INFO(step);
  const TestNode node;
  REQUIRE(dieAt(node, step, [](Datapath& datapath) {
    datapath.attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
    datapath.attachments.detach(kOwner.key());
  }));
  const auto datapath = node.start();
  waitHealthy(*datapath);
  CHECK(datapath->status.list().empty());
  node.checkFree();
  CHECK_FALSE(datapath->attachments.detach(kOwner.key()));
  datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  datapath->attachments.detach(kOwner.key());
}

TEST_CASE("a crash between an Attach and the addresses that follow") {
  const BackendKind backend = GENERATE(BackendKind::software, BackendKind::kernel);
  const TestNode node(backend);
  REQUIRE(dieAt(node, "between", [&](Datapath& datapath) {
    datapath.attachments.attach({kOwner, "nic-0", {}, {}, {}, true}, kNever);
    ::_exit(42);
  }));
  const auto datapath = node.start();
  waitHealthy(*datapath);
  const auto live = datapath->attachments.setAddresses(kOwner.key(), {{"10.0.0.3/24"}, {}});
  CHECK(live.attachment.ips == std::vector<std::string>{"10.0.0.3/24"});
  CHECK(live.state == "waiting");
  CHECK(datapath->attachments.detach(kOwner.key()));
  node.checkFree();
}

TEST_CASE("a failure at every step of an Attach is undone at once") {
  const std::string step = GENERATE("recorded", "directory", "engine", "worker started", "port",
                                    "worker", "files", "attached");
  INFO(step);
  const TestNode node;
  bool fail = true;
  const auto datapath = node.start([&](std::string_view name) {
    if (fail && name == step) throw std::runtime_error("no space left on device");
  });
  CHECK_THROWS_WITH(datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever),
                    "no space left on device");
  CHECK(datapath->status.list().empty());
  node.checkFree();
  fail = false;
  datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  waitWaiting(*datapath);
  datapath->attachments.detach(kOwner.key());
}

TEST_CASE("a Detach that failed half-way ends with the next one") {
  const std::string step =
      GENERATE("detaching", "worker stopped", "engine stopped", "directory emptied");
  INFO(step);
  const TestNode node;
  bool fail = true;
  const auto datapath = node.start([&](std::string_view name) {
    if (fail && name == step) throw std::runtime_error("input/output error");
  });
  datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  CHECK_THROWS_WITH(datapath->attachments.detach(kOwner.key()), "input/output error");
  fail = false;
  CHECK(datapath->attachments.detach(kOwner.key()));
  node.checkFree();
}

TEST_CASE("what can't be undone at once stays with its owner until it can") {
  const std::string step =
      GENERATE("detaching", "worker stopped", "engine stopped", "directory emptied");
  INFO(step);
  const TestNode node;
  bool failAttach = true, failUndo = true;
  const auto datapath = node.start([&](std::string_view name) {
    if (failAttach && name == "files") throw std::runtime_error("no space left on device");
    if (failUndo && name == step) throw std::runtime_error("input/output error");
  });
  waitHealthy(*datapath);
  CHECK_THROWS_WITH(datapath->attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever),
                    "no space left on device");
  REQUIRE(datapath->status.list().size() == 1);
  CHECK(datapath->status.list()[0].state == "failed: detaching: input/output error");
  CHECK(datapath->status.deviceStates()[0].reason ==
        "could not be reclaimed from default/pod (container c0, interface net1) (retrying): "
        "input/output error");
  datapath->attachments.detachOrphans();  // retries, and fails again
  CHECK(datapath->status.list()[0].outlook == "abandoned: being detached");
  CHECK(datapath->node.orphans.counts().detached == 0);

  failAttach = failUndo = false;
  SECTION("reconciliation frees it") {
    datapath->attachments.detachOrphans();
    CHECK(datapath->node.orphans.counts().detached == 1);
    CHECK(datapath->status.list().empty());
    CHECK(datapath->status.deviceStates()[0].healthy);
  }
  SECTION("the next Attach frees it") {
    Owner next = kOwner;
    next.containerId = "c1";
    datapath->attachments.attach({next, "nic-0", {}, {}, {}}, kNever);
    CHECK(datapath->status.list()[0].attachment.owner.containerId == "c1");
    CHECK(datapath->status.deviceStates()[0].healthy);
    CHECK(datapath->attachments.detach(next.key()));
  }
  SECTION("a Detach frees it") {
    CHECK(datapath->attachments.detach(kOwner.key()));
  }
  SECTION("a person frees it, without force") {
    CHECK(datapath->attachments.release("nic-0", kOwner.key(), false));
  }
  node.checkFree();
}

TEST_CASE("a failure at every step of setting addresses leaves those before") {
  const std::string step = GENERATE("addresses recorded", "addresses set", "addresses published");
  INFO(step);
  const TestNode node;
  bool fail = true;
  const auto datapath = node.start([&](std::string_view name) {
    if (fail && name == step) throw std::runtime_error("no space left on device");
  });
  const auto attached =
      datapath->attachments.attach({kOwner, "nic-0", {}, {"10.0.0.2/24"}, {}}, kNever);
  const std::string told = readFile(node.paths().device("nic-0") + "/device.json");
  CHECK_THROWS_WITH(datapath->attachments.setAddresses(kOwner.key(), {{"10.0.0.3/24"}, {}}),
                    "no space left on device");
  CHECK(datapath->status.list().at(0).attachment.ips == attached.attachment.ips);
  CHECK(readFile(node.paths().device("nic-0") + "/device.json") == told);
  CHECK(readFile(node.paths().owners() + "/nic-0.json").find("10.0.0.3") == std::string::npos);
  fail = false;
  const auto after = datapath->attachments.setAddresses(kOwner.key(), {{"10.0.0.3/24"}, {}});
  CHECK(after.attachment.ips == std::vector<std::string>{"10.0.0.3/24"});
  datapath->attachments.detach(kOwner.key());
  CHECK_THROWS_AS(datapath->attachments.setAddresses(kOwner.key(), {}), RefusedError);
}
