// What is undone of a provisioning, from every state that a killed process can leave. The sysfs is
// made of plain files, so that what would be told to the kernel can be read; that the kernel does
// it is the test machine's to show.
#include "deviceplugin/datapath/provisioner.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <future>

#include "common/atomic_file.h"
#include "tests/unit/datapath/temporary_directory.h"
#include "tests/unit/discovery/sysfs_tree.h"

using namespace vdpa;

namespace {

const std::string kVf = "0000:65:00.2";

class Node {
 public:
  Node() {
    tree.add({.address = kVf, .driver = ""});
    tree.write(file("driver_override"), "(null)\n");
    for (const char* driver : {"virtio-pci", "vp-vdpa"})
      for (const char* attribute : {"bind", "unbind"})
        tree.write(std::string("bus/pci/drivers/") + driver + "/" + attribute, "");
    tree.write("bus/pci/drivers_probe", "");
  }

  // The states of a function on its way from virtio-pci to vp-vdpa.
  void is(const std::string& driver, const std::string& driverOverride) {
    if (!driver.empty())
      std::filesystem::create_symlink(tree.path() + "/bus/pci/drivers/" + driver,
                                      tree.path() + "/" + file("driver"));
    tree.write(file("driver_override"), driverOverride + "\n");
  }
  void record(const std::string& bootId, const std::string& foundOverride = "") {
    std::filesystem::create_directories(directory.path() + "/provisioned");
    std::ofstream(recordPath()) << R"({"version": 1, "vdpa": "vdpa7", "pciAddress": ")" << kVf
                                << R"(", "pciDriver": "vp-vdpa", "foundDriver": "virtio-pci", )"
                                << R"("foundOverride": ")" << foundOverride << R"(", "bootId": ")"
                                << bootId << "\"}";
  }
  // Waits for what `devices` lead to.
  void want(const Provisioner::Devices& devices = {}) {
    std::promise<void> stepped;
    Provisioner provisioner({.sysfs = tree.path(),
                             .records = directory.path() + "/provisioned",
                             .bootId = "this",
                             .add =
                                 [this](const std::string& name, const std::string& management) {
                                   calls.push_back("add " + name + " at " + management);
                                   tree.addVdpa(kVf, name, "vhost_vdpa", 3);
                                 },
                             .remove =
                                 [this](const std::string& name) {
                                   calls.push_back("remove " + name);
                                   if (!kernelRefuses.empty())
                                     throw std::runtime_error(kernelRefuses);
                                 },
                             .owned = [this](const std::string&) { return owned; },
                             .changed =
                                 [&stepped, once = false]() mutable {
                                   if (!once) stepped.set_value();
                                   once = true;
                                 }},
                            bus);
    provisioner.want(devices);
    stepped.get_future().wait();
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
  std::vector<std::string> left;
  bool owned = false;
};

const std::string kUnbind = "bus/pci/drivers/vp-vdpa/unbind";
const std::string kBind = "bus/pci/drivers/virtio-pci/bind";

DeviceConfig device(const std::string& driver) {
  DeviceConfig config;
  config.backend = Backend::kernel;
  config.pciAddress = kVf;
  config.vdpa = "vdpa7";
  config.managementDevice = "pci/" + kVf;
  config.pciDriver = driver;
  config.provision = true;
  return config;
}

}  // namespace

TEST_CASE_METHOD(Node, "provisioning done: device removed, driver and override back") {
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

TEST_CASE_METHOD(Node, "killed before anything was changed: nothing is") {
  is("virtio-pci", "(null)");
  record("this");
  want();
  CHECK(calls.empty());
  CHECK(told(kUnbind).empty());
  CHECK(told(kBind).empty());
  CHECK(told(file("driver_override")) == "(null)\n");
  CHECK_FALSE(recorded());
}

TEST_CASE_METHOD(Node, "killed between override and unbinding: the override goes") {
  is("virtio-pci", "vp-vdpa");
  record("this");
  want();
  CHECK(told(kUnbind).empty());
  CHECK(told(kBind).empty());
  CHECK(told(file("driver_override")).starts_with("\n"));
  CHECK_FALSE(recorded());
}

TEST_CASE_METHOD(Node, "killed while no driver was bound: the one that was found is bound") {
  is("", "vp-vdpa");
  record("this");
  want();
  CHECK(told(kUnbind).empty());
  CHECK(told(kBind) == kVf);
  CHECK(told(file("driver_override")).starts_with("\n"));
}

TEST_CASE_METHOD(Node, "what somebody else bound since is theirs") {
  tree.write("bus/pci/drivers/vfio-pci/unbind", "");
  is("vfio-pci", "vfio-pci");
  record("this");
  want();
  CHECK(told("bus/pci/drivers/vfio-pci/unbind").empty());
  CHECK(told(kBind).empty());
  CHECK(told(file("driver_override")) == "vfio-pci\n");
  CHECK_FALSE(recorded());
}

TEST_CASE_METHOD(Node, "a function that is gone needs nothing") {
  record("this");
  tree.remove(kVf);
  want();
  CHECK_FALSE(recorded());
}

TEST_CASE_METHOD(Node, "a restart of the node undid everything") {
  is("vp-vdpa", "vp-vdpa");
  record("another");
  want();
  CHECK(told(kUnbind).empty());
  CHECK(told(file("driver_override")) == "vp-vdpa\n");
  CHECK_FALSE(recorded());
}

TEST_CASE_METHOD(Node, "a pod's device stays until it is given back") {
  is("vp-vdpa", "vp-vdpa");
  tree.addVdpa(kVf, "vdpa7", "vhost_vdpa", 3);
  record("this");
  owned = true;
  want();
  CHECK(calls.empty());
  CHECK(recorded());
}

TEST_CASE_METHOD(Node, "a device that the kernel keeps stays recorded, its driver untouched") {
  is("vp-vdpa", "vp-vdpa");
  tree.addVdpa(kVf, "vdpa7", "vhost_vdpa", 3);
  record("this");
  kernelRefuses = "Device or resource busy";
  want();
  CHECK(told(kUnbind).empty());
  CHECK(recorded());
  CHECK(left == std::vector{kVf});
}

TEST_CASE_METHOD(Node, "an unreadable record is kept for a person to look at") {
  record("this");
  std::ofstream(recordPath()) << "{";
  want();
  CHECK(recorded());
  CHECK(calls.empty());
}

TEST_CASE_METHOD(Node, "a device is recorded, then made") {
  is("vp-vdpa", "(null)");
  want({{kVf, device("vp-vdpa")}});
  CHECK(problem.empty());
  CHECK(calls == std::vector<std::string>{"add vdpa7 at pci/" + kVf});
  CHECK(recorded());
}

TEST_CASE_METHOD(Node, "a device that went away under its pod is not made before that has gone") {
  owned = true;
  want({{kVf, device("vp-vdpa")}});
  CHECK(calls.empty());
  CHECK(problem ==
        "cannot make vDPA device vdpa7: it went away under its pod, whose end has to come first");
}

TEST_CASE_METHOD(Node, "somebody else's device of that name is used, and never recorded") {
  is("vp-vdpa", "(null)");
  tree.addVdpa(kVf, "vdpa7", "vhost_vdpa", 3);
  want({{kVf, device("vp-vdpa")}});
  CHECK(problem.empty());
  CHECK(calls.empty());
  CHECK_FALSE(recorded());
}

TEST_CASE_METHOD(Node, "a function that may serve somebody is not taken") {
  const bool program = GENERATE(true, false);
  is(program ? "vfio-pci" : "virtio-pci", "(null)");
  want({{kVf, device("vp-vdpa")}});
  CHECK_THAT(problem, Catch::Contains(program ? "a program may be using it" : "a pod may have it"));
  CHECK_FALSE(recorded());
  CHECK(told(file("driver_override")) == "(null)\n");
  CHECK(told("bus/pci/drivers_probe").empty());
}

TEST_CASE_METHOD(Node, "a driver that the kernel lacks, or that takes nothing, is named") {
  is("virtio-pci", "(null)");
  tree.addNetdev(kVf, "eth7");
  want({{kVf, device("mlx5-vdpa")}});
  CHECK_THAT(problem, Catch::Contains("no PCI driver mlx5-vdpa: `modprobe mlx5_vdpa`"));
  want({{kVf, device("vp-vdpa")}});
  CHECK_THAT(problem, Catch::Contains("driver vp-vdpa did not take " + kVf));
  CHECK(told("bus/pci/drivers_probe") == kVf);
  CHECK(told("bus/pci/drivers/virtio-pci/unbind") == kVf);
}
