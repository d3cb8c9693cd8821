// A node with one device, nic-0, whose processes are stand-ins, and helpers for the tests of
// Attachments.
#pragma once

#include <catch2/catch.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/atomic_file.h"
#include "common/control_channel.h"
#include "common/log.h"
#include "deviceplugin/datapath/attachments/datapath.h"
#include "tests/unit/datapath/control_program_path.h"
#include "tests/unit/datapath/temporary_directory.h"
#include "tests/unit/discovery/sysfs_tree.h"

namespace vdpa::datapath {

// Made before there are threads, as in a program's main().
inline const auto kLogLevel = log::lowest();

inline const Owner kOwner{"c0", "net1", "/proc/self/ns/net", "fast", "default", "pod", "uid"};

class TestNode {
 public:
  // The kind of nic-0: a port of a switch, or a device of the kernel.
  explicit TestNode(BackendKind backend = BackendKind::software) : backend_(backend) {
    if (backend != BackendKind::kernel) return;
    tree_.add({.address = "0000:65:00.2", .driver = "vp-vdpa"});
    tree_.addVdpa("0000:65:00.2", "vdpa0", "vhost_vdpa", 3);
    writeFileAtomically(tree_.path() + "/vhost-vdpa-3", "", Durability::memory);
  }
  ~TestNode() {
    // Processes that the test left running.
    stopStray(paths().workerControl("nic-0"));
    stopStray(paths().switchControl("vdpa.io-nic"));
  }

  Paths paths() const { return {directory_.path() + "/run", directory_.path() + "/state"}; }

  Node::Options options(std::function<void(std::string_view)> onStep = nullptr,
                        const std::string& bootId = "boot") const {
    Programs programs;
    programs.worker = programs.vswitch = programs.vswitchDpdk = controlProgram();
    if (backend_ == BackendKind::kernel) programs.sysfs = programs.dev = tree_.path();
    return {.programs = programs,
            .paths = paths(),
            .bootId = bootId,
            .listPodDevices = [] { return std::vector<PodDevice>(); },
            .onStep = std::move(onStep),
            .releaseAfter = std::chrono::seconds(0)};
  }

  std::unique_ptr<Datapath> start(std::function<void(std::string_view)> onStep = nullptr,
                                  const std::string& bootId = "boot") const {
    auto datapath = std::make_unique<Datapath>(options(std::move(onStep), bootId), [] {});
    DeviceConfig device;
    device.backend = backend_;
    if (backend_ == BackendKind::kernel) device.vdpa = "vdpa0";
    datapath->offers.setDevices({{"vdpa.io/nic", {}, {}, {{"nic-0", device}}}});
    return datapath;
  }

  bool hasRecord() const { return std::filesystem::exists(paths().owners() + "/nic-0.json"); }
  bool hasFiles() const { return !std::filesystem::is_empty(paths().device("nic-0")); }
  bool hasWorker() const { return std::filesystem::exists(paths().workerControl("nic-0")); }
  std::vector<std::string> ports() const {
    if (backend_ == BackendKind::kernel) return {};
    const auto answer = askOnce(paths().switchControl("vdpa.io-nic"), helloRequest());
    const auto& ports = answer.hello().vswitch().ports();
    return {ports.begin(), ports.end()};
  }
  int workerPid() const {
    return askOnce(paths().workerControl("nic-0"), helloRequest()).hello().pid();
  }
  std::string badRecord() const { return paths().owners() + "/nic-0.json.bad"; }
  void checkFree() const {
    CHECK_FALSE(hasRecord());
    CHECK_FALSE(hasFiles());
    CHECK_FALSE(hasWorker());
    CHECK(ports().empty());
  }

 private:
  const BackendKind backend_;
  SysfsTree tree_;
  TemporaryDirectory directory_;
};

inline void waitWaiting(const Datapath& datapath) {
  for (int i = 0; i < 2000; ++i) {
    const auto list = datapath.status.list();
    if (list.size() == 1 && list[0].state == "waiting") return;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  FAIL("the worker did not come up");
}

inline void waitHealthy(const Datapath& datapath) {
  for (int i = 0; i < 2000; ++i) {
    const auto states = datapath.status.deviceStates();
    if (states.size() == 1 && states[0].healthy) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  FAIL("the switch did not come up");
}

inline void checkUnhealthy(const Datapath& datapath, const std::string& words) {
  const auto states = datapath.status.deviceStates();
  REQUIRE(states.size() == 1);
  CHECK_FALSE(states[0].healthy);
  CHECK_THAT(states[0].reason, Catch::Matchers::Contains(words));
}

inline void waitPorts(const TestNode& node, const std::vector<std::string>& expected) {
  for (int i = 0; i < 2000; ++i) {
    try {
      if (node.ports() == expected) return;
    } catch (const std::system_error&) {
      // While one switch replaces another.
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  FAIL("the switch has other ports");
}

inline const auto kNever = [] { return false; };

// Simulates a process that is killed at `step`. Returns whether it got there.
inline bool dieAt(const TestNode& node, const std::string& step,
                  const std::function<void(Datapath&)>& action) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      const auto datapath = node.start([&](std::string_view name) {
        if (name == step) ::_exit(42);
      });
      action(*datapath);
    } catch (...) {
    }
    ::_exit(1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 42;
}

}  // namespace vdpa::datapath
