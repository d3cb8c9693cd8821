// A switch that outlived the datapath: what it runs with, and when a new configuration takes
// effect.
#include "deviceplugin/datapath/switch_handle.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa;
using namespace std::chrono_literals;

namespace {

class Node {
 public:
  ~Node() { stopStray(paths().switchControl("vdpa.io-nic")); }

  Paths paths() const { return {directory_.path() + "/run", directory_.path() + "/state"}; }

  std::unique_ptr<SwitchHandle> meet(const SwitchConfig& config, SwitchHandle::Ports ports) const {
    Programs programs;
    programs.vswitch = CONTROL_PROGRAM;
    makeDirectory(paths().switches(), 0700);
    auto handle = std::make_unique<SwitchHandle>(
        programs, paths(), "vdpa.io/nic", config, std::move(ports),
        [](const std::string&) { return false; }, [] {});
    REQUIRE(handle->waitUp(std::chrono::steady_clock::now() + 20s));
    return handle;
  }

  nlohmann::json cores() const {
    ControlClient client(paths().switchControl("vdpa.io-nic"), nullptr, nullptr);
    return client.call("hello").at("cores");
  }

 private:
  TemporaryDirectory directory_;
};

const PortSettings kPort = [] {
  PortSettings port;
  port.mac = "02:00:00:00:00:01";
  port.mtu = 1500;
  return port;
}();

}  // namespace

TEST_CASE_METHOD(Node, "other cores take effect when the last port of an adopted switch goes") {
  meet({1, 1500, "", "2-3"}, {{"nic-0", kPort}});
  const auto handle = meet({1, 1500, "", "4"}, {{"nic-0", kPort}});
  CHECK(handle->config().cores == "2,3");
  CHECK(cores() == nlohmann::json::array({2, 3}));
  handle->removePort("nic-0");
  REQUIRE(handle->waitUp(std::chrono::steady_clock::now() + 20s));
  CHECK(handle->config().cores == "4");
  CHECK(cores() == nlohmann::json::array({4}));
}

TEST_CASE_METHOD(Node, "the same cores, written otherwise, are no new configuration") {
  const pid_t before = meet({1, 1500, "", "2-3"}, {{"nic-0", kPort}})->status().pid;
  const auto handle = meet({1, 1500, "", "2,3"}, {{"nic-0", kPort}});
  CHECK(handle->config().cores == "2,3");
  handle->removePort("nic-0");
  REQUIRE(handle->waitUp(std::chrono::steady_clock::now() + 20s));
  CHECK(handle->status().pid == before);
}

TEST_CASE_METHOD(Node, "a port that is removed while its switch comes up doesn't stay") {
  const std::string control = paths().switchControl("vdpa.io-nic");
  makeDirectory(paths().switchDir("vdpa.io-nic"), 0700);
  std::ofstream(control + ".hold") << "";  // the first port isn't added before this goes
  Programs programs;
  programs.vswitch = CONTROL_PROGRAM;
  SwitchHandle handle(
      programs, paths(), "vdpa.io/nic", {1, 1500, "", ""}, {{"nic-0", kPort}, {"nic-1", kPort}},
      [](const std::string&) { return false; }, [] {});
  while (!std::filesystem::exists(control + ".held")) std::this_thread::sleep_for(1ms);
  std::thread removal([&] { handle.removePort("nic-1"); });
  while (handle.hasPort("nic-1")) std::this_thread::sleep_for(1ms);
  std::this_thread::sleep_for(50ms);  // its request reaches the switch before that for the port
  std::filesystem::remove(control + ".hold");
  removal.join();
  REQUIRE(handle.waitUp(std::chrono::steady_clock::now() + 20s));
  const auto ports = handle.readPorts();
  CHECK(ports.contains("nic-0"));
  CHECK_FALSE(ports.contains("nic-1"));
}

TEST_CASE_METHOD(Node, "a switch whose end failed is started again when it is wanted again") {
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
  CHECK(cores() == nlohmann::json::array({2}));
}

TEST_CASE_METHOD(Node, "a switch without ports is started anew with the configuration in force") {
  meet({1, 1500, "", ""}, {});
  const auto handle = meet({1, 1500, "", "1"}, {});
  CHECK(cores() == nlohmann::json::array({1}));
}
