// A crash at every step of an Attach and of a Detach: the next start finds an owner that has its
// device whole, or nobody, and nothing is left over.
#include <signal.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <thread>

#include "deviceplugin/datapath/attachments.h"
#include "deviceplugin/datapath/refused_error.h"
#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa;
using namespace std::chrono_literals;

namespace {

const Owner kOwner{"c0", "net1", "/proc/self/ns/net", "fast", "default", "pod", "uid"};

class Node {
 public:
  ~Node() {
    // Whatever the test left running.
    stopStray(paths().workerControl("nic-0"));
    stopStray(paths().switchControl("vdpa.io-nic"));
  }

  Paths paths() const { return {directory_.path() + "/run", directory_.path() + "/state"}; }

  std::unique_ptr<Attachments> start(std::function<void(std::string_view)> onStep = nullptr) const {
    Programs programs;
    programs.worker = programs.vswitch = CONTROL_PROGRAM;
    auto attachments = std::make_unique<Attachments>(
        Attachments::Options{programs, paths(), "boot", [] { return std::vector<PodDevice>(); },
                             nullptr, nullptr, 4s, std::move(onStep)},
        [] {});
    attachments->setDevices({{"vdpa.io/nic", {}, {}, {{"nic-0", {}}}}});
    return attachments;
  }

  bool hasRecord() const { return std::filesystem::exists(paths().owners() + "/nic-0.json"); }
  bool hasFiles() const { return !std::filesystem::is_empty(paths().device("nic-0")); }
  bool hasWorker() const { return std::filesystem::exists(paths().workerControl("nic-0")); }
  std::vector<std::string> ports() const {
    ControlClient client(paths().switchControl("vdpa.io-nic"), nullptr, nullptr);
    return client.call("hello").at("ports").get<std::vector<std::string>>();
  }
  void checkFree() const {
    CHECK_FALSE(hasRecord());
    CHECK_FALSE(hasFiles());
    CHECK_FALSE(hasWorker());
    CHECK(ports().empty());
  }

 private:
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

const auto kNever = [] { return false; };

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
  const std::string step =
      GENERATE("recorded", "directory", "engine", "worker", "files", "attached");
  INFO(step);
  const Node node;
  REQUIRE(dieAt(node, step, [](Attachments& attachments) {
    attachments.attach({kOwner, "nic-0", {}, {}, {}}, kNever);
  }));
  {
    const auto attachments = node.start();
    waitHealthy(*attachments);
    if (step == "attached") {
      waitWaiting(*attachments);
      CHECK(attachments->check({kOwner, "nic-0", {}, {}, {}}) ==
            std::vector<std::string>{"the socket " + node.paths().podSocket("nic-0") +
                                     " is missing"});  // the stand-in's is a plain file
    } else {
      CHECK(attachments->list().empty());
      node.checkFree();
    }
    // Multus sends a DEL for what failed, then a new ADD.
    CHECK(attachments->detach(kOwner.key()) == (step == "attached"));
    node.checkFree();
    CHECK(attachments->attach({kOwner, "nic-0", {}, {}, {}}, kNever).attachment.deviceId ==
          "nic-0");
    CHECK(attachments->detach(kOwner.key()));
  }
  node.checkFree();
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

TEST_CASE("a failure at every step of an Attach is undone at once") {
  const std::string step =
      GENERATE("recorded", "directory", "engine", "worker", "files", "attached");
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

TEST_CASE("a caller that has gone is not left with a device") {
  const Node node;
  const auto attachments = node.start();
  CHECK_THROWS_AS(attachments->attach({kOwner, "nic-0", {}, {}, {}}, [] { return true; }),
                  RefusedError);
  CHECK(attachments->list().empty());
  node.checkFree();
}
