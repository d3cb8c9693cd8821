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
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/atomic_file.h"
#include "common/control_channel.h"
#include "common/event_thread.h"
#include "common/paths.h"
#include "common/port_settings.h"
#include "common/task.h"
#include "common/uplink_config.h"
#include "common/vlan_ranges.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/programs.h"
#include "deviceplugin/datapath/model/refused_error.h"
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
    programs.vswitch = program_;
    programs.vswitchDpdk = programWithUplinks_;
    programs.cgroupRoot = cgroupRoot_;
    makeDirectory(paths().switches(), 0700);
    auto handle =
        std::make_unique<SwitchHandle>(thread_, programs, paths(), "vdpa.io/nic", config,
                                       std::move(ports), holders(), [this] { noteChange(); });
    REQUIRE(handle->waitUp(std::chrono::steady_clock::now() + 20s));
    return handle;
  }

  // Which program serves for which switch of meet(); "": none.
  void install(const std::string& withoutUplink, const std::string& withUplink) {
    program_ = withoutUplink;
    programWithUplinks_ = withUplink;
  }
  // As its switch reports it.
  control::SwitchHello hello() const {
    return askOnce(paths().switchControl("vdpa.io-nic"), helloRequest()).hello().vswitch();
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

  // Gives the stand-in a command beside the protocol; see control_program.cc.
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

  // As requested from its switch.
  control::Port port(const std::string& id) const {
    control::Request request;
    request.mutable_ports();
    const auto answer = askOnce(paths().switchControl("vdpa.io-nic"), std::move(request));
    for (const auto& port : answer.ports().ports())
      if (port.port().id() == id) return port.port();
    FAIL("no port " << id);
    return {};
  }
  // How long the port is closed, in ms.
  int64_t closure(const std::string& id) const { return port(id).closed().milliseconds(); }

  // The release of the switches that start from now on, as they report it.
  void install(const std::string& version) const {
    makeDirectory(paths().switches(), 0700);
    makeDirectory(paths().switchDir("vdpa.io-nic"), 0700);
    writeFileAtomically(paths().switchControl("vdpa.io-nic") + ".version", version,
                        Durability::memory);
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
  std::string cgroupRoot_, program_ = controlProgram(), programWithUplinks_ = controlProgram();
  mutable std::mutex mutex_;
  const SwitchHandle* watched_ = nullptr;
  std::string lastPause_;
};

const SwitchPort kPort = [] {
  SwitchPort port{defaultSettings()};
  port.settings.mac = "02:00:00:00:00:01"_mac;
  return port;
}();

}  // namespace

TEST_CASE_METHOD(TestNode, "other cores take effect when the last port of an adopted switch goes") {
  meet({1, 1500, {}, "2-3"}, {{"nic-0", kPort}});
  const auto handle = meet({1, 1500, {}, "4"}, {{"nic-0", kPort}});
  CHECK(handle->config().cores == "2,3");
  CHECK(cores() == std::vector<unsigned>{2, 3});
  handle->removePort("nic-0");
  REQUIRE(handle->waitUp(std::chrono::steady_clock::now() + 20s));
  CHECK(handle->config().cores == "4");
  CHECK(cores() == std::vector<unsigned>{4});
}

TEST_CASE_METHOD(TestNode, "the same cores, written otherwise, are no new configuration") {
  const pid_t before = meet({1, 1500, {}, "2-3"}, {{"nic-0", kPort}})->status().pid;
  const auto handle = meet({1, 1500, {}, "2,3"}, {{"nic-0", kPort}});
  CHECK(handle->config().cores == "2,3");
  handle->removePort("nic-0");
  REQUIRE(handle->waitUp(std::chrono::steady_clock::now() + 20s));
  CHECK(handle->status().pid == before);
}

TEST_CASE_METHOD(TestNode, "only a switch with an uplink is the program that has uplinks") {
  install(controlProgram(), "/none");
  meet({1, 1500, {}, ""}, {{"nic-0", kPort}})->stop();
  install("/none", controlProgram());
  for (const UplinkConfig& uplink :
       {UplinkConfig{.netdev = "eth1"}, {.netdev = "eth1", .xdp = true}, {.pci = "0000:03:00.0"}}) {
    const auto handle = meet({1, 1500, uplink, ""}, {{"nic-0", kPort}});
    CHECK(handle->config().uplink == uplink);
    CHECK(hello().uplink() == uplink.netdev);
    CHECK(hello().uplink_xdp() == uplink.xdp);
    CHECK(hello().uplink_pci() == uplink.pci);
    handle->stop();
  }
}

TEST_CASE_METHOD(TestNode, "another uplink takes effect when the last port goes") {
  const UplinkConfig packets{.netdev = "eth1"}, xdp{.netdev = "eth1", .xdp = true};
  meet({1, 1500, packets, ""}, {{"nic-0", kPort}});
  const auto handle = meet({1, 1500, xdp, ""}, {{"nic-0", kPort}});
  CHECK(handle->config().uplink == packets);
  handle->removePort("nic-0");
  REQUIRE(handle->waitUp(std::chrono::steady_clock::now() + 20s));
  CHECK(handle->config().uplink == xdp);
  CHECK(hello().uplink_xdp());
}

TEST_CASE_METHOD(TestNode, "a port that is removed while its switch comes up doesn't stay") {
  const std::string control = paths().switchControl("vdpa.io-nic");
  makeDirectory(paths().switchDir("vdpa.io-nic"), 0700);
  std::ofstream(control + ".hold") << "";  // delays the first port until the file is removed
  Programs programs;
  programs.vswitch = controlProgram();
  SwitchHandle handle(thread_, programs, paths(), "vdpa.io/nic", {1, 1500, {}, ""},
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
  const auto handle = meet({1, 1500, {}, "2"}, {});
  const auto lock =
      std::filesystem::path(paths().switchControl("vdpa.io-nic")).replace_extension(".lock");
  REQUIRE(std::filesystem::remove(lock));
  std::filesystem::create_directory(lock);
  CHECK_THROWS_WITH(handle->stop(), Catch::Contains("cannot open " + lock.string()));
  CHECK_FALSE(handle->status().up);
  REQUIRE(std::filesystem::remove(lock));
  handle->configure({1, 1500, {}, "2"});
  REQUIRE(handle->waitUp(std::chrono::steady_clock::now() + 20s));
  CHECK(cores() == std::vector<unsigned>{2});
}

TEST_CASE_METHOD(TestNode,
                 "a switch without ports is started anew with the configuration in force") {
  meet({1, 1500, {}, ""}, {});
  const auto handle = meet({1, 1500, {}, "1"}, {});
  CHECK(cores() == std::vector<unsigned>{1});
}

TEST_CASE_METHOD(TestNode, "a port that was closed for what its pod did says so until it opens") {
  auto handle = meet({1, 1500, {}, ""}, {{"nic-0", kPort}, {"nic-1", kPort}});
  const auto wait = [&](const std::string& words) {
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    while (handle->offence("nic-0") != words && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(1ms);
    CHECK(handle->offence("nic-0") == words);
  };
  const std::string words =
      "vdpa-switch of vdpa.io/nic closed the port for what its pod did: memory truncated";
  command("punish", "nic-0");
  wait(words);
  CHECK(handle->offence("nic-1") == "");
  CHECK(handle->portProblem("nic-0") == "");  // the device is usable
  command("open", "nic-0");
  wait("");
  command("punish", "nic-0");
  wait(words);
  command("connect", "nic-0");
  wait("");
  command("punish", "nic-0");
  wait(words);
  SECTION("or its pod is gone") {
    handle->removePort("nic-0");
    CHECK(handle->offence("nic-0") == "");
  }
  SECTION("or the switch is another") {
    CHECK_THROWS(command("exit"));
    wait("");
  }
  SECTION("or it was replaced") {
    handle->upgrade();
    CHECK(handle->offence("nic-0") == "");
  }
}

TEST_CASE_METHOD(TestNode, "a port that crashed its switch is closed, for longer each time") {
  auto handle = meet({1, 1500, {}, ""}, {{"nic-0", kPort}, {"nic-1", kPort}});
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
    const auto next = meet({1, 1500, {}, ""}, {{"nic-0", kPort}, {"nic-1", kPort}});
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
  const auto handle = meet({1, 1500, {}, ""}, {{"nic-0", kPort}, {"nic-1", kPort}});
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
  const auto handle = meet({1, 1500, {}, ""}, {{"nic-0", kPort}, {"nic-1", kPort}});
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

TEST_CASE_METHOD(TestNode, "a new storm limit reaches all ports of the switch that runs") {
  SwitchPort limited = kPort;
  limited.policy = {false, 5};
  const auto handle = meet({1, 1500, {}, ""}, {{"nic-0", limited}});
  handle->addPort("nic-1", limited);
  CHECK(port("nic-0").storm_limit() == 5);
  CHECK(port("nic-1").storm_limit() == 5);
  const pid_t before = handle->status().pid;
  handle->limitStorms(7);
  for (const char* id : {"nic-0", "nic-1"}) {
    CHECK(port(id).storm_limit() == 7);
    CHECK(port(id).has_offloads());
    CHECK_FALSE(port(id).offloads());  // as when it was attached
    CHECK(port(id).mac() == "02:00:00:00:00:01");
  }
  CHECK(handle->status().pid == before);
  // So do later ports, and the next switch.
  handle->addPort("nic-2", limited);
  CHECK(port("nic-2").storm_limit() == 7);
  CHECK_THROWS(command("exit"));
  waitUntil("the end of the switch", [&] { return handle->status().deaths == 1; });
  REQUIRE(handle->waitUp(std::chrono::steady_clock::now() + 20s));
  CHECK(port("nic-0").storm_limit() == 7);
  handle->limitStorms(0);
  CHECK(port("nic-0").storm_limit() == 0);
}

TEST_CASE_METHOD(TestNode, "a setting that a running switch of 0.1.0 does not know is refused") {
  install("0.1.0");
  const auto handle = meet({1, 1500, {}, ""}, {{"nic-0", kPort}});
  CHECK_NOTHROW(handle->addPort("nic-1", kPort));
  std::map<std::string, SwitchPort> ports{
      {"vlanTrunk 100-110", kPort}, {"max_rx_rate 5", kPort}, {"burst 64", kPort}};
  ports["vlanTrunk 100-110"].settings.vlanTrunk = VlanRanges::parse("100-110");
  ports["max_rx_rate 5"].settings.maxRxRate = 5;
  ports["burst 64"].settings.maxTxRate = 5;
  ports["burst 64"].settings.burst = 64;
  std::map<std::string, std::future<void>> calls;
  for (const auto& [setting, port] : ports)
    calls[setting] = std::async(std::launch::async, [&handle, &setting = setting, &port = port] {
      handle->addPort("nic-" + setting.substr(0, 5), port);
    });
  for (auto& [setting, call] : calls) {
    try {
      call.get();
      FAIL("accepted " << setting);
    } catch (const RefusedError& error) {
      CHECK(error.refusal() == Refusal::aborted);
      CHECK(error.what() ==
            "cannot add a port for nic-" + setting.substr(0, 5) +
                " to the switch of vdpa.io/nic: " + setting +
                " needs a newer vdpa-switch than the one that runs, 0.1.0, which is being "
                "replaced: try again, and if it stays, see the log of vdpa-datapath");
    }
  }
  CHECK(handle->readPorts().size() == 2);
}

TEST_CASE_METHOD(TestNode, "a port that is removed while it waits for its switch does not come") {
  install("0.1.0");
  const auto handle = meet({1, 1500, {}, ""}, {{"nic-0", kPort}});
  SwitchPort trunk = kPort;
  trunk.settings.vlanTrunk = VlanRanges::parse("100-110");
  auto attach = std::async(std::launch::async, [&] { handle->addPort("nic-1", trunk); });
  waitUntil("the port", [&] { return handle->hasPort("nic-1"); });
  handle->removePort("nic-1");
  install("0.2.0");
  handle->upgrade();
  CHECK_NOTHROW(attach.get());
  CHECK_FALSE(handle->hasPort("nic-1"));
  CHECK_FALSE(handle->readPorts().contains("nic-1"));
}

TEST_CASE_METHOD(TestNode, "a port with such a setting waits for the replacement of the switch") {
  install("0.1.0");
  const auto handle = meet({1, 1500, {}, ""}, {{"nic-0", kPort}});
  SwitchPort trunk = kPort;
  trunk.settings.vlanTrunk = VlanRanges::parse("100-110");
  auto attach = std::async(std::launch::async, [&] { handle->addPort("nic-1", trunk); });
  waitUntil("the port", [&] { return handle->hasPort("nic-1"); });
  install("0.2.0");
  handle->upgrade();
  CHECK_NOTHROW(attach.get());
  CHECK(port("nic-1").vlan_trunk() == "100-110");
}
