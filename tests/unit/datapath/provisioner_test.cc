// Undoing of provisioning, from every state that a killed process can leave. The sysfs consists of
// plain files, which record the writes to the kernel; the test machine covers the kernel's
// reaction.
#include "deviceplugin/datapath/hardware/provisioner.h"

#include <catch2/catch.hpp>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/json.h"
#include "common/mac_address.h"
#include "common/vdpa_attributes.h"
#include "deviceplugin/datapath/hardware/vdpa_bus.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "tests/unit/datapath/temporary_directory.h"
#include "tests/unit/discovery/sysfs_tree.h"
#include "tests/unit/mac_literal.h"

using namespace vdpa;
using namespace vdpa::datapath;

namespace {

const std::string kVf = "0000:65:00.2";

std::string withWords(const VdpaAttributes& attributes) {
  return attributes == VdpaAttributes() ? "" : " with " + describe(attributes);
}

class TestNode {
 public:
  TestNode() {
    tree.add({.address = kVf, .driver = ""});
    tree.write(file("driver_override"), "(null)\n");
    for (const char* driver : {"virtio-pci", "vp-vdpa"})
      for (const char* attribute : {"bind", "unbind"})
        tree.write(std::string("bus/pci/drivers/") + driver + "/" + attribute, "");
    tree.write("bus/pci/drivers_probe", "");
  }

  // The states of a function while it is moved from virtio-pci to vp-vdpa.
  void is(const std::string& driver, const std::string& driverOverride) {
    if (!driver.empty())
      std::filesystem::create_symlink(tree.path() + "/bus/pci/drivers/" + driver,
                                      tree.path() + "/" + file("driver"));
    tree.write(file("driver_override"), driverOverride + "\n");
  }
  void record(const std::string& bootId, const std::string& foundOverride = "", int version = 1) {
    std::filesystem::create_directories(directory.path() + "/provisioned");
    std::ofstream(recordPath()) << R"({"version": )" << version
                                << R"(, "later": 7, "vdpa": "vdpa7", "pciAddress": ")" << kVf
                                << R"(", "pciDriver": "vp-vdpa", "foundDriver": "virtio-pci", )"
                                << R"("foundOverride": ")" << foundOverride << R"(", "bootId": ")"
                                << bootId << "\"}";
  }
  // Waits for the result of `devices`.
  void want(const Provisioner::Devices& devices = {}) {
    std::promise<void> stepped;
    std::atomic<bool> once = false;
    Provisioner provisioner(
        {.sysfs = tree.path(),
         .records = directory.path() + "/provisioned",
         .bootId = "this",
         .add =
             [this](const std::string& name, const std::string& management,
                    const VdpaAttributes& attributes) {
               calls.push_back("add " + name + " at " + management + withWords(attributes));
               if (attributes == refusedAttributes) throw std::runtime_error("Invalid argument");
               tree.addVdpa(kVf, name, "vhost_vdpa", name == "vdpa7" ? 3 : 4);
               if (onAdd) onAdd(name);
               return takes.value_or(attributes);
             },
         .remove =
             [this](const std::string& name) {
               calls.push_back("remove " + name);
               if (!kernelRefuses.empty()) throw std::runtime_error(kernelRefuses);
               tree.removeVdpa(name);
             },
         .owned = [this](const std::string&) { return owned; },
         .changed =
             [&] {
               if (!once.exchange(true)) stepped.set_value();
             }},
        bus);
    running = &provisioner;
    provisioner.want(devices);
    stepped.get_future().wait();
    if (after) after(provisioner);
    problem = provisioner.problem(kVf);
    left = provisioner.waitUndone(std::chrono::steady_clock::now());
  }

  std::string told(const std::string& path) { return readFile(tree.path() + "/" + path); }
  std::string file(const std::string& name) const { return tree.pathOf(kVf) + "/" + name; }
  std::string recordPath() const { return directory.path() + "/provisioned/" + kVf; }
  bool recorded() const { return std::filesystem::exists(recordPath()); }

  SysfsTree tree;
  TemporaryDirectory directory;
  VdpaBus bus{tree.path(), "/dev"};
  std::vector<std::string> calls;
  std::string problem, kernelRefuses;
  std::optional<VdpaAttributes> refusedAttributes;
  std::function<void(const std::string& name)> onAdd;
  Provisioner* running = nullptr;
  std::optional<VdpaAttributes> takes;  // of an old kernel; else all
  std::function<void(Provisioner&)> after;
  std::vector<std::string> left;
  bool owned = false;
};

const std::string kUnbind = "bus/pci/drivers/vp-vdpa/unbind";
const std::string kBind = "bus/pci/drivers/virtio-pci/bind";

DeviceConfig device(const std::string& driver) {
  DeviceConfig config;
  config.backend = BackendKind::kernel;
  config.pciAddress = kVf;
  config.vdpa = "vdpa7";
  config.managementDevice = "pci/" + kVf;
  config.pciDriver = driver;
  config.provision = true;
  return config;
}

}  // namespace

TEST_CASE_METHOD(TestNode, "provisioning done: device removed, driver and override back") {
  is("vp-vdpa", "vp-vdpa");
  tree.addVdpa(kVf, "vdpa7", "vhost_vdpa", 3);
  record("this", "kept");
  want();
  CHECK(calls == std::vector<std::string>{"remove vdpa7"});
  CHECK(told(kUnbind) == kVf);
  CHECK(told(kBind) == kVf);
  CHECK(told(file("driver_override")).starts_with("kept"));
  CHECK_FALSE(recorded());
  CHECK(left.empty());
}

TEST_CASE_METHOD(TestNode, "killed before anything was changed: nothing is") {
  is("virtio-pci", "(null)");
  record("this");
  want();
  CHECK(calls.empty());
  CHECK(told(kUnbind).empty());
  CHECK(told(kBind).empty());
  CHECK(told(file("driver_override")) == "(null)\n");
  CHECK_FALSE(recorded());
}

TEST_CASE_METHOD(TestNode, "killed between override and unbinding: the override goes") {
  is("virtio-pci", "vp-vdpa");
  record("this");
  want();
  CHECK(told(kUnbind).empty());
  CHECK(told(kBind).empty());
  CHECK(told(file("driver_override")).starts_with('\n'));
  CHECK_FALSE(recorded());
}

TEST_CASE_METHOD(TestNode, "killed while no driver was bound: the one that was found is bound") {
  is("", "vp-vdpa");
  record("this");
  want();
  CHECK(told(kUnbind).empty());
  CHECK(told(kBind) == kVf);
  CHECK(told(file("driver_override")).starts_with('\n'));
}

TEST_CASE_METHOD(TestNode, "what somebody else bound since is theirs") {
  tree.write("bus/pci/drivers/vfio-pci/unbind", "");
  is("vfio-pci", "vfio-pci");
  record("this");
  want();
  CHECK(told("bus/pci/drivers/vfio-pci/unbind").empty());
  CHECK(told(kBind).empty());
  CHECK(told(file("driver_override")) == "vfio-pci\n");
  CHECK_FALSE(recorded());
}

TEST_CASE_METHOD(TestNode, "a function that is gone needs nothing") {
  record("this");
  tree.remove(kVf);
  want();
  CHECK_FALSE(recorded());
}

TEST_CASE_METHOD(TestNode, "a restart of the node undid everything") {
  is("vp-vdpa", "vp-vdpa");
  record("another");
  want();
  CHECK(told(kUnbind).empty());
  CHECK(told(file("driver_override")) == "vp-vdpa\n");
  CHECK_FALSE(recorded());
}

TEST_CASE_METHOD(TestNode, "a pod's device stays until it is given back") {
  is("vp-vdpa", "vp-vdpa");
  tree.addVdpa(kVf, "vdpa7", "vhost_vdpa", 3);
  record("this");
  owned = true;
  want();
  CHECK(calls.empty());
  CHECK(recorded());
}

TEST_CASE_METHOD(TestNode, "a device that the kernel keeps stays recorded, its driver untouched") {
  is("vp-vdpa", "vp-vdpa");
  tree.addVdpa(kVf, "vdpa7", "vhost_vdpa", 3);
  record("this");
  kernelRefuses = "Device or resource busy";
  want();
  CHECK(told(kUnbind).empty());
  CHECK(recorded());
  CHECK(left == std::vector{kVf});
}

TEST_CASE_METHOD(TestNode, "an unreadable record is kept for a person to look at") {
  record("this");
  std::ofstream(recordPath()) << "{";
  want();
  CHECK(recorded());
  CHECK(calls.empty());
}

TEST_CASE_METHOD(TestNode, "a device is recorded, then made") {
  is("vp-vdpa", "(null)");
  want({{kVf, device("vp-vdpa")}});
  CHECK(problem.empty());
  CHECK(calls == std::vector<std::string>{"add vdpa7 at pci/" + kVf});
  CHECK(recorded());
}

TEST_CASE_METHOD(TestNode,
                 "a device that went away under its pod is not made before that has gone") {
  owned = true;
  want({{kVf, device("vp-vdpa")}});
  CHECK(calls.empty());
  CHECK(problem ==
        "cannot make vDPA device vdpa7: it disappeared while a pod had it and is remade once that "
        "pod is gone");
}

TEST_CASE_METHOD(TestNode, "somebody else's device of that name is used, and never recorded") {
  is("vp-vdpa", "(null)");
  tree.addVdpa(kVf, "vdpa7", "vhost_vdpa", 3);
  want({{kVf, device("vp-vdpa")}});
  CHECK(problem.empty());
  CHECK(calls.empty());
  CHECK_FALSE(recorded());
}

TEST_CASE_METHOD(TestNode, "a function that may serve somebody is not taken") {
  const bool program = GENERATE(true, false);
  is(program ? "vfio-pci" : "virtio-pci", "(null)");
  want({{kVf, device("vp-vdpa")}});
  CHECK_THAT(problem,
             Catch::Contains(program ? "a program may be using it" : "a pod may be using it"));
  CHECK_FALSE(recorded());
  CHECK(told(file("driver_override")) == "(null)\n");
  CHECK(told("bus/pci/drivers_probe").empty());
}

TEST_CASE_METHOD(TestNode, "a driver that the kernel lacks, or that takes nothing, is named") {
  is("virtio-pci", "(null)");
  tree.addNetdev(kVf, "eth7");
  want({{kVf, device("mlx5-vdpa")}});
  CHECK_THAT(problem, Catch::Contains("no PCI driver mlx5-vdpa: `modprobe mlx5_vdpa`"));
  want({{kVf, device("vp-vdpa")}});
  CHECK_THAT(problem, Catch::Contains("driver vp-vdpa did not take " + kVf));
  CHECK(told("bus/pci/drivers_probe") == kVf);
  CHECK(told("bus/pci/drivers/virtio-pci/unbind") == kVf);
}

namespace {

const VdpaAttributes kAll{0, 0, 0, {}};

DeviceConfig deviceWith(const VdpaAttributes& attributes) {
  DeviceConfig config = device("vp-vdpa");
  config.attributes = attributes;
  return config;
}

VdpaAttributes withMac(const MacAddress& mac) {
  VdpaAttributes attributes = kAll;
  attributes.mac = mac;
  return attributes;
}

// A provisioned device that was made with all its parent's abilities.
class Provisioned : public TestNode {
 public:
  Provisioned() {
    is("vp-vdpa", "(null)");
    want({{kVf, deviceWith(kAll)}});
    REQUIRE(calls == std::vector<std::string>{kAdd + " with all queue pairs, all features"});
    calls.clear();
  }
  const std::string kAdd = "add vdpa7 at pci/" + kVf;
};

const auto kSoon = [] { return std::chrono::steady_clock::now() + std::chrono::seconds(10); };

}  // namespace

TEST_CASE_METHOD(Provisioned, "other attributes remake a free device, once") {
  VdpaAttributes larger = kAll;
  larger.mtu = 9000;
  want({{kVf, deviceWith(larger)}});
  const std::vector<std::string> made{"remove vdpa7",
                                      kAdd + " with all queue pairs, mtu 9000, all features"};
  CHECK(calls == made);
  want({{kVf, deviceWith(larger)}});
  CHECK(calls == made);
  CHECK(problem.empty());
}

TEST_CASE_METHOD(Provisioned, "the record says what the kernel took of the attributes") {
  VdpaAttributes larger = kAll;
  larger.mtu = 9000;
  takes = VdpaAttributes{std::nullopt, std::nullopt, 9000, {}};
  want({{kVf, deviceWith(larger)}});
  const auto recorded = nlohmann::json::parse(readFile(recordPath()));
  CHECK(recorded["attributes"] ==
        nlohmann::json{{"queuePairs", 0}, {"features", 0}, {"mtu", 9000}, {"mac", ""}});
  CHECK(recorded["taken"] == nlohmann::json{{"mtu", 9000}, {"mac", ""}});
}

TEST_CASE_METHOD(Provisioned, "a pod's device is remade when the pod has gone") {
  owned = true;
  want({{kVf, deviceWith({})}});
  CHECK(calls.empty());
  CHECK(problem.empty());
  owned = false;
  want({{kVf, deviceWith({})}});
  CHECK(calls == std::vector<std::string>{"remove vdpa7", kAdd});
}

TEST_CASE_METHOD(TestNode,
                 "a device of 0.1.0, which knew no attributes, gets those it should have") {
  is("vp-vdpa", "(null)");
  tree.addVdpa(kVf, "vdpa7", "vhost_vdpa", 3);
  record("this");
  SECTION("none: it stays") {
    want({{kVf, deviceWith({})}});
    CHECK(calls.empty());
  }
  SECTION("all") {
    want({{kVf, deviceWith(kAll)}});
    CHECK(calls.size() == 2);
    CHECK(readFile(recordPath()).find("virtio-pci") != std::string::npos);  // the original stays
  }
}

TEST_CASE_METHOD(TestNode,
                 "a record that a later release wrote, and must read itself, is left alone") {
  is("vp-vdpa", "(null)");
  tree.addVdpa(kVf, "vdpa7", "vhost_vdpa", 3);
  record("this", "", 2);
  want();
  CHECK(calls.empty());
  CHECK(recorded());
}

TEST_CASE_METHOD(Provisioned, "a making that was cut off is done again, wherever that was") {
  // The record on disk from the removal of the old device until the new one exists.
  auto json = readFile(recordPath());
  const auto made = json.find("\"made\": true");
  REQUIRE(made != std::string::npos);
  std::ofstream(recordPath()) << json.replace(made, 12, "\"made\": false");
  SECTION("before the old one was removed, or after the new one was made") {
    want({{kVf, deviceWith(kAll)}});
    CHECK(calls ==
          std::vector<std::string>{"remove vdpa7", kAdd + " with all queue pairs, all features"});
  }
  SECTION("in between") {
    tree.removeVdpa("vdpa7");
    want({{kVf, deviceWith(kAll)}});
    CHECK(calls == std::vector<std::string>{kAdd + " with all queue pairs, all features"});
  }
  CHECK(readFile(recordPath()).find("\"made\": true") != std::string::npos);
  calls.clear();
  want({{kVf, deviceWith(kAll)}});
  CHECK(calls.empty());
}

TEST_CASE_METHOD(Provisioned, "the holder of its lease remakes it, and the resource's come back") {
  const MacAddress mac = "02:00:00:00:00:01"_mac;
  owned = true;
  after = [&](Provisioner& provisioner) {
    CHECK_FALSE(provisioner.remake(kVf, deviceWith(kAll), kAll, kSoon()));
    CHECK(calls.empty());
    CHECK(provisioner.remake(kVf, deviceWith(kAll), withMac(mac), kSoon()));
    CHECK_FALSE(provisioner.remake(kVf, deviceWith(kAll), withMac(mac), kSoon()));
  };
  want({{kVf, deviceWith(kAll)}});
  CHECK(calls == std::vector<std::string>{"remove vdpa7", kAdd + " with all queue pairs, mac " +
                                                              mac.text() + ", all features"});
  calls.clear();
  after = nullptr;
  want({{kVf, deviceWith(kAll)}});  // as the next start finds it, with its pod
  CHECK(calls.empty());
  owned = false;
  want({{kVf, deviceWith(kAll)}});
  CHECK(calls ==
        std::vector<std::string>{"remove vdpa7", kAdd + " with all queue pairs, all features"});
}

TEST_CASE_METHOD(Provisioned, "attributes that the kernel refuses leave the device as it was") {
  refusedAttributes = withMac("01:00:00:00:00:01"_mac);
  owned = true;
  after = [&](Provisioner& provisioner) {
    CHECK_THROWS_WITH(provisioner.remake(kVf, deviceWith(kAll), *refusedAttributes, kSoon()),
                      Catch::Contains("Invalid argument"));
  };
  want({{kVf, deviceWith(kAll)}});
  CHECK(bus.has("vdpa7"));
  calls.clear();
  owned = false;
  after = nullptr;
  want({{kVf, deviceWith(kAll)}});
  CHECK(calls.empty());
}

TEST_CASE_METHOD(TestNode, "somebody else's device is not remade") {
  is("vp-vdpa", "(null)");
  tree.addVdpa(kVf, "vdpa7", "vhost_vdpa", 3);
  SECTION("without a record") {}
  SECTION("with one of another boot") {
    record("another");
  }
  after = [&](Provisioner& provisioner) {
    CHECK_FALSE(
        provisioner.remake(kVf, deviceWith(kAll), withMac("02:00:00:00:00:01"_mac), kSoon()));
  };
  want({{kVf, deviceWith(kAll)}});
  CHECK(calls.empty());
}

TEST_CASE_METHOD(TestNode, "a device that can't be bound is not made again for that") {
  is("vp-vdpa", "(null)");
  onAdd = [this](const std::string&) {
    std::filesystem::remove_all(tree.path() + "/bus/vdpa/drivers/vhost_vdpa");
  };
  for (int i = 0; i < 2; ++i) {
    want({{kVf, deviceWith(kAll)}});
    CHECK_THAT(problem, Catch::Contains("`modprobe vhost-vdpa`"));
    CHECK(calls.size() == 1);
  }
}

TEST_CASE_METHOD(Provisioned, "a pod's device is not waited for while others are made") {
  DeviceConfig other = deviceWith(kAll);
  other.vdpa = "vdpa8";
  bool remade = false;
  onAdd = [&](const std::string& name) {
    if (name != "vdpa8") return;
    remade = std::async(std::launch::async, [this] {
               return running->remake(kVf, deviceWith(kAll), withMac("02:00:00:00:00:01"_mac),
                                      std::chrono::steady_clock::now() + std::chrono::seconds(1));
             }).get();
  };
  want({{kVf, deviceWith(kAll)}, {"other", other}});
  CHECK(remade);
}
