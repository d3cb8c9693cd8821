// A switch that outlived the datapath: its configuration, and when a new one takes effect.
#include "deviceplugin/datapath/processes/switch_handle.h"

#include <catch2/catch.hpp>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "common/atomic_file.h"
#include "common/control_channel.h"
#include "common/event_thread.h"
#include "common/paths.h"
#include "common/port_settings.h"
#include "common/task.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/programs.h"
#include "deviceplugin/datapath/processes/supervised_process.h"
#include "tests/unit/datapath/control_program_path.h"
#include "tests/unit/datapath/temporary_directory.h"
#include "tests/unit/datapath/wait_until.h"
#include "tests/unit/mac_literal.h"

using namespace vdpa;
using namespace vdpa::datapath;
using namespace std::chrono_literals;

namespace {

class TestNode {
 public:
  ~TestNode() { stopStray(paths().switchControl("vdpa.io-nic")); }

  Paths paths() const { return {directory_.path() + "/run", directory_.path() + "/state"}; }

  static Holders holders() {
    return {.unknown = [](const std::string&) { return false; },
            .name = [](const std::string& id) { return "the pod of " + id; },
            .unallocated = [](std::string, std::chrono::milliseconds) -> Task<uint64_t> {
              co_return 0;
            }};
  }

  std::unique_ptr<SwitchHandle> meet(const SwitchConfig& config, SwitchHandle::Ports ports) {
    Programs programs;
    programs.vswitch = controlProgram();
    programs.cgroupRoot = cgroupRoot_;
    makeDirectory(paths().switches(), 0700);
    auto handle =
        std::make_unique<SwitchHandle>(thread_, programs, paths(), "vdpa.io/nic", config,
                                       std::move(ports), holders(), [this] { noteChange(); });
    REQUIRE(handle->waitUp(std::chrono::steady_clock::now() + 20s));
    return handle;
  }

  // A cgroup v2 in which the kernel has killed this many processes, for the switches of meet().
  void haveKilled(int count) {
    cgroupRoot_ = directory_.path() + "/cgroup";
    std::filesystem::create_directories(cgroupRoot_ + "/vdpa");
    for (const char* name : {"/cgroup.procs", "/vdpa/cgroup.procs"})
      std::ofstream(cgroupRoot_ + name) << "";
    for (const char* name : {"/vdpa/memory.current", "/vdpa/memory.max"})
      std::ofstream(cgroupRoot_ + name) << "268435456";
    std::ofstream(cgroupRoot_ + "/vdpa/memory.events") << "oom_kill " << count;
  }

  // From now on lastPause() is this switch's; null: no switch's.
  void watch(const SwitchHandle* handle) {
    std::lock_guard lock(mutex_);
    watched_ = handle;
  }
  // Why the process that ended last is not running, and when it is restarted.
  std::string lastPause() const {
    std::lock_guard lock(mutex_);
    return lastPause_;
  }

  // What the stand-in does beside the protocol; see control_program.cc.
  void command(const std::string& operation, const std::string& id = "") const {
    const std::string control = paths().switchControl("vdpa.io-nic");
    writeFileAtomically(control + ".command", operation + " " + id, Durability::memory);
    control::Request request;
    request.mutable_go();
    askOnce(control, std::move(request));
  }
  std::vector<unsigned> cores() const {
    const auto answer = askOnce(paths().switchControl("vdpa.io-nic"), helloRequest());
    const auto& cores = answer.hello().vswitch().cores();
    return {cores.begin(), cores.end()};
  }

  // How long the port is closed, in ms, as requested from its switch.
  int64_t closure(const std::string& id) const {
    control::Request request;
    request.mutable_ports();
    const auto answer = askOnce(paths().switchControl("vdpa.io-nic"), std::move(request));
    for (const auto& port : answer.ports().ports())
      if (port.port().id() == id) return port.port().closed().milliseconds();
    FAIL("no port " << id);
    return -1;
  }

  // Crashes the switch at ring 1 of this port, and waits for the next one.
  void crash(const SwitchHandle& handle, const std::string& id) const {
    const unsigned before = handle.status().deaths;
    CHECK_THROWS(command("crash", id));
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    while (handle.status().deaths == before && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(1ms);
    REQUIRE(handle.waitUp(deadline));
  }

 protected:
  EventThread thread_;

 private:
  // On the supervision thread.
  void noteChange() {
    std::lock_guard lock(mutex_);
    if (!watched_) return;
    const std::string reason = watched_->status().reason;
    if (reason.find("next start in") != std::string::npos) lastPause_ = reason;
  }

  TemporaryDirectory directory_;
  std::string cgroupRoot_;
  mutable std::mutex mutex_;
  const SwitchHandle* watched_ = nullptr;
  std::string lastPause_;
};

const PortSettings kPort = [] {
  PortSettings port = defaultSettings();
  port.mac = "02:00:00:00:00:01"_mac;
  return port;
}();

}  // namespace

TEST_CASE_METHOD(TestNode, "other cores take effect when the last port of an adopted switch goes") {
  meet({1, 1500, "", "2-3"}, {{"nic-0", kPort}});
  const auto handle = meet({1, 1500, "", "4"}, {{"nic-0", kPort}});
  CHECK(handle->config().cores == "2,3");
  CHECK(cores() == std::vector<unsigned>{2, 3});
  handle->removePort("nic-0");
  REQUIRE(handle->waitUp(std::chrono::steady_clock::now() + 20s));
  CHECK(handle->config().cores == "4");
  CHECK(cores() == std::vector<unsigned>{4});
}

TEST_CASE_METHOD(TestNode, "the same cores, written otherwise, are no new configuration") {
  const pid_t before = meet({1, 1500, "", "2-3"}, {{"nic-0", kPort}})->status().pid;
  const auto handle = meet({1, 1500, "", "2,3"}, {{"nic-0", kPort}});
  CHECK(handle->config().cores == "2,3");
  handle->removePort("nic-0");
  REQUIRE(handle->waitUp(std::chrono::steady_clock::now() + 20s));
  CHECK(handle->status().pid == before);
}

TEST_CASE_METHOD(TestNode, "a port that is removed while its switch comes up doesn't stay") {
  const std::string control = paths().switchControl("vdpa.io-nic");
  makeDirectory(paths().switchDir("vdpa.io-nic"), 0700);
  std::ofstream(control + ".hold") << "";  // delays the first port until the file is removed
  Programs programs;
  programs.vswitch = controlProgram();
  SwitchHandle handle(thread_, programs, paths(), "vdpa.io/nic", {1, 1500, "", ""},
                      {{"nic-0", kPort}, {"nic-1", kPort}}, holders(), [] {});
  waitUntil("the first port", [&] { return std::filesystem::exists(control + ".held"); });
  handle.removePort("nic-1");
  std::filesystem::remove(control + ".hold");
  REQUIRE(handle.waitUp(std::chrono::steady_clock::now() + 20s));
  const auto ports = handle.readPorts();
  CHECK(ports.contains("nic-0"));
  CHECK_FALSE(ports.contains("nic-1"));
}

TEST_CASE_METHOD(TestNode, "a switch whose end failed is started again when it is wanted again") {
  const auto handle = meet({1, 1500, "", "2"}, {});
  const auto lock =
      std::filesystem::path(paths().switchControl("vdpa.io-nic")).replace_extension(".lock");
  REQUIRE(std::filesystem::remove(lock));
  std::filesystem::create_directory(lock);
  CHECK_THROWS_WITH(handle->stop(), Catch::Contains("cannot open " + lock.string()));
  CHECK_FALSE(handle->status().up);
  REQUIRE(std::filesystem::remove(lock));
  handle->configure({1, 1500, "", "2"});
  REQUIRE(handle->waitUp(std::chrono::steady_clock::now() + 20s));
  CHECK(cores() == std::vector<unsigned>{2});
}

TEST_CASE_METHOD(TestNode,
                 "a switch without ports is started anew with the configuration in force") {
  meet({1, 1500, "", ""}, {});
  const auto handle = meet({1, 1500, "", "1"}, {});
  CHECK(cores() == std::vector<unsigned>{1});
}

TEST_CASE_METHOD(TestNode, "a port that crashed its switch is closed, for longer each time") {
  auto handle = meet({1, 1500, "", ""}, {{"nic-0", kPort}, {"nic-1", kPort}});
  CHECK(closure("nic-0") == 0);
  crash(*handle, "nic-0");
  CHECK(closure("nic-0") > 50000);
  CHECK(closure("nic-0") <= 60000);
  CHECK(closure("nic-1") == 0);
  CHECK_THAT(handle->portProblem("nic-0"),
             Catch::Contains("vdpa-switch of vdpa.io/nic crashed with signal 6 as it served ring "
                             "1 of nic-0: the port is closed for 60 s"));
  CHECK(handle->portProblem("nic-1") == "");
  CHECK(handle->problem() == "");

  crash(*handle, "nic-0");
  CHECK(closure("nic-0") > 110000);
  CHECK(closure("nic-0") <= 120000);

  SECTION("until the switch opens it") {
    command("open", "nic-0");
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    while (handle->portProblem("nic-0") != "" && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(1ms);
    CHECK(handle->portProblem("nic-0") == "");
    // It is open after a switch that ended for another reason.
    CHECK_THROWS(command("exit"));
    while (handle->status().deaths < 3 && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(1ms);
    REQUIRE(handle->waitUp(deadline));
    CHECK(closure("nic-0") == 0);
  }
  SECTION("also for the next vdpa-datapath") {
    const std::string problem = handle->portProblem("nic-0");
    handle.reset();
    const auto next = meet({1, 1500, "", ""}, {{"nic-0", kPort}, {"nic-1", kPort}});
    CHECK(next->status().found);
    CHECK(next->portProblem("nic-0") == problem);
    CHECK(next->portProblem("nic-1") == "");
    crash(*next, "nic-0");
    CHECK(closure("nic-0") > 230000);
    CHECK(closure("nic-0") <= 240000);
  }
  SECTION("until its pod is gone") {
    handle->removePort("nic-0");
    CHECK(handle->portProblem("nic-0") == "");
    handle->addPort("nic-0", kPort);
    CHECK(closure("nic-0") == 0);
  }
}

TEST_CASE_METHOD(TestNode,
                 "a port whose pod has the switch allocate memory without end is closed") {
  haveKilled(0);
  const auto handle = meet({1, 1500, "", ""}, {{"nic-0", kPort}, {"nic-1", kPort}});
  command("serve", "nic-0");
  haveKilled(1);
  ::kill(handle->status().pid, SIGKILL);
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  while (handle->portProblem("nic-0").empty() && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(1ms);
  CHECK(handle->portProblem("nic-0") ==
        "vdpa-switch of vdpa.io/nic was killed for lack of memory (most likely the pod shares "
        "memory that it has not touched: the pod of nic-0) as it served ring 1 of nic-0: the port "
        "is closed for 60 s; restart its pod, and look at its image if that happens again");
  REQUIRE(handle->waitUp(deadline));
  CHECK(closure("nic-0") > 50000);
  CHECK(handle->portProblem("nic-1") == "");

  // Killed from outside.
  command("serve", "nic-1");
  ::kill(handle->status().pid, SIGKILL);
  while (handle->status().deaths < 2 && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(1ms);
  REQUIRE(handle->waitUp(deadline));
  CHECK(handle->portProblem("nic-1") == "");
}

TEST_CASE_METHOD(TestNode, "crashes whose cause is known do not make the others wait longer") {
  const auto handle = meet({1, 1500, "", ""}, {{"nic-0", kPort}, {"nic-1", kPort}});
  watch(handle.get());
  for (int life = 0; life < 3; ++life) {
    crash(*handle, "nic-1");
    CHECK_THAT(lastPause(), Catch::Contains("next start in 50 ms"));
  }
  crash(*handle, "nic-7");  // at a port that doesn't exist
  CHECK_THAT(lastPause(), Catch::Contains("next start in 50 ms"));
  crash(*handle, "nic-7");
  CHECK_THAT(lastPause(), Catch::Contains("next start in 100 ms"));
  watch(nullptr);
  CHECK(handle->portProblem("nic-7") == "");
  CHECK(closure("nic-0") == 0);
}
