// A provisioned device is remade for a network, and gets its resource's attributes back when the
// pod is gone: also after a crash, in a call to the kernel or between two of them. A sysfs of plain
// files stands for the kernel, with a file that records how the device was made.
#include <sched.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/mac_address.h"
#include "common/pod_resources.h"
#include "common/port_settings.h"
#include "common/vdpa_attributes.h"
#include "common/virtio_features.h"
#include "deviceplugin/datapath/attachments/attach_request.h"
#include "deviceplugin/datapath/attachments/datapath.h"
#include "deviceplugin/datapath/attachments/node.h"
#include "deviceplugin/datapath/hardware/vf.h"
#include "deviceplugin/datapath/hardware/vf_configuration.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/programs.h"
#include "deviceplugin/datapath/processes/supervised_process.h"
#include "tests/unit/datapath/control_program_path.h"
#include "tests/unit/datapath/node.h"

using namespace vdpa;
using namespace vdpa::datapath;

namespace {

constexpr const char* kVf = "0000:65:00.2";
constexpr const char* kMac = "02:00:00:00:00:01";
const std::string kOwn = "all queue pairs, all features";

class MadeNode {
 public:
  MadeNode() {
    tree_.add({.address = kVf, .driver = "vp-vdpa"});
    tree_.write(tree_.pathOf(kVf) + "/driver_override", "(null)\n");
    writeFileAtomically(directory_.path() + "/vhost-vdpa-3", "", Durability::memory);
  }
  ~MadeNode() { stopStray(paths().workerControl("nic-0")); }

  Paths paths() const { return {directory_.path() + "/run", directory_.path() + "/state"}; }

  // `at` is called at every step, including the kernel's calls.
  std::unique_ptr<Datapath> start(
      const std::function<void(std::string_view)>& at = [](auto) {},
      const DeviceConfig& wanted = device()) {
    Programs programs;
    programs.worker = controlProgram();
    programs.sysfs = tree_.path();
    programs.dev = directory_.path();
    VfConfiguration::Access hardware{
        [](const std::string&) { return true; },
        [](const std::string&) -> std::optional<Vf> { return std::nullopt; },
        [this](const std::string&) { return MacAddress::parse(made("mac")); },
        [](const std::string&, const MacAddress&) { return false; },
        [this](const std::string&) {
          if (!showsMtu) return 0u;
          const std::string mtu = made("mtu");
          return mtu.empty() ? 1500u : static_cast<unsigned>(std::stoul(mtu));
        }};
    auto datapath = std::make_unique<Datapath>(
        Node::Options{.programs = programs,
                      .paths = paths(),
                      .bootId = "boot",
                      .listPodDevices = [] { return std::vector<PodDevice>(); },
                      .vdpa = {.add =
                                   [this, at](const std::string& name, const std::string&,
                                              const VdpaAttributes& with) {
                                     at("before add");
                                     add(name, with);
                                     at("after add");
                                     return with;
                                   },
                               .remove =
                                   [this, at](const std::string& name) {
                                     at("before remove");
                                     tree_.removeVdpa(name);
                                     ++removed;
                                     at("after remove");
                                   }},
                      .onStep = at,
                      .releaseAfter = std::chrono::seconds(0),
                      .hardware = hardware},
        [] {});
    std::vector<Resource> resources;
    if (offered) resources.push_back({"vdpa.io/nic", {}, {}, {{"nic-0", wanted}}});
    datapath->offers.setDevices(resources);
    return datapath;
  }

  static DeviceConfig device() {
    DeviceConfig device;
    device.backend = BackendKind::kernel;
    device.vdpa = "vdpa7";
    device.managementDevice = std::string("pci/") + kVf;
    device.pciAddress = kVf;
    device.pciDriver = "vp-vdpa";
    device.provision = true;
    device.attributes = {0, 0, 0, {}};
    device.rules = {"mlx5_core", true, true, false};
    return device;
  }

  std::string made(const std::string& what) const {
    const std::string file = directory_.path() + "/made-" + what;
    return std::filesystem::exists(file) ? readFile(file) : "";
  }
  bool waitMade(const std::string& with) const {
    for (int i = 0; i < 4000; ++i) {
      if (made("with") == with &&
          std::filesystem::exists(tree_.path() + "/bus/vdpa/devices/vdpa7/driver"))
        return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    UNSCOPED_INFO("made with " << made("with"));
    return false;
  }
  // For a parent's MTU, without waiting for a device.
  bool waitParentMtu(const std::string& mtu) const {
    for (int i = 0; i < 4000 && made("mtu") != mtu; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return made("mtu") == mtu;
  }

  bool offered = true;  // passed to the processes that start
  bool refusesMac = false;
  unsigned leastMtu = 68;
  std::atomic<bool> showsMtu = true;  // of a device that is made without an MTU
  std::atomic<int> removed = 0;

 private:
  void add(const std::string& name, const VdpaAttributes& with) {
    if (refusesMac && with.mac) throw std::runtime_error("Operation not supported");
    if (with.mtu != 0 && with.mtu < leastMtu) throw std::runtime_error("Invalid argument");
    if (with.features.value_or(0) & kFeatureMtu) showsMtu = true;
    if (with.mtu > 9000) throw std::runtime_error("Invalid argument");
    tree_.addVdpa(kVf, name, "vhost_vdpa", 3);
    writeFileAtomically(directory_.path() + "/made-mac", textOf(with.mac, ""), Durability::memory);
    if (with.mtu != 0)  // as with mlx5: the parent's MTU stays
      writeFileAtomically(directory_.path() + "/made-mtu", std::to_string(with.mtu),
                          Durability::memory);
    // The last one, for which the tests wait.
    writeFileAtomically(directory_.path() + "/made-with", vdpa::describe(with), Durability::memory);
  }

  SysfsTree tree_;
  TemporaryDirectory directory_;
};

// An empty `mac` and an `mtu` of 0 request none.
AttachRequest requestOf(const std::string& mac, unsigned mtu) {
  AttachRequest request{kOwner, "nic-0", {}, {}, {}};
  request.settings.mac = MacAddress::parse(mac);
  if (mtu != 0) request.settings.mtu = mtu;
  return request;
}

}  // namespace

TEST_CASE("a network's MAC and MTU remake a device, and the resource's attributes come back") {
  MadeNode node;
  const auto datapath = node.start();
  REQUIRE(node.waitMade(kOwn));
  const auto live = datapath->attachments.attach(requestOf(kMac, 9000), kNever);
  CHECK(node.made("with") ==
        "all queue pairs, mtu 9000, mac " + std::string(kMac) + ", all features");
  CHECK(live.attachment.port.mac->text() == kMac);
  CHECK(live.attachment.port.mtu == 9000);
  CHECK(datapath->attachments.detach(kOwner.key()));
  CHECK(node.waitMade("all queue pairs, mtu 1500, all features"));  // the parent's is restored
}

TEST_CASE("the parent's MTU is put back when the configuration has none any more") {
  MadeNode node;
  auto large = MadeNode::device();
  large.attributes.mtu = 9000;
  const bool fromTheStart = GENERATE(true, false);
  const auto datapath = node.start([](auto) {}, fromTheStart ? large : MadeNode::device());
  if (!fromTheStart) {
    REQUIRE(node.waitMade(kOwn));
    datapath->offers.setDevices({{"vdpa.io/nic", {}, {}, {{"nic-0", large}}}});
  }
  CHECK(node.waitMade("all queue pairs, mtu 9000, all features"));
  SECTION("of the resource") {
    datapath->offers.setDevices({{"vdpa.io/nic", {}, {}, {{"nic-0", MadeNode::device()}}}});
    CHECK(node.waitMade("all queue pairs, mtu 1500, all features"));
  }
  SECTION("of the device") {
    datapath->offers.setDevices({});
    CHECK(node.waitParentMtu("1500"));
  }
  CHECK(node.made("mtu") == "1500");
}

TEST_CASE("the parent's MTU is learned although the resource's list of features has no MTU") {
  MadeNode node;
  node.showsMtu = false;
  auto large = MadeNode::device();
  large.attributes = {0, kFeatureMac, 9000, {}};
  const auto datapath = node.start([](auto) {}, large);
  CHECK(node.waitMade("all queue pairs, mtu 9000, features MAC"));
  datapath->offers.setDevices({});
  CHECK(node.waitParentMtu("1500"));
}

TEST_CASE("a network's MTU is refused where the resource's list of features has no MTU") {
  MadeNode node;
  auto device = MadeNode::device();
  device.attributes.features = kFeatureMac;
  const auto datapath = node.start([](auto) {}, device);
  REQUIRE(node.waitMade("all queue pairs, features MAC"));
  CHECK_THROWS_WITH(datapath->attachments.attach(requestOf(kMac, 9000), kNever),
                    Catch::Contains("add MTU to `vdpa.features`"));
  CHECK(node.removed == 0);
}

TEST_CASE("a crash at every step leaves the parent's MTU to be put back") {
  const std::string step = GENERATE("before add", "after add", "before remove", "after remove");
  const bool undoing = GENERATE(false, true);
  INFO(step << (undoing ? ", undoing" : ", making"));
  MadeNode node;
  auto large = MadeNode::device();
  large.attributes.mtu = 9000;
  const std::string kLarge = "all queue pairs, mtu 9000, all features";
  if (undoing) REQUIRE((node.start([](auto) {}, large), node.waitMade(kLarge)));
  const pid_t child = ::fork();
  if (child == 0) {
    const auto datapath = node.start(
        [&](std::string_view at) {
          if (at == step) ::_exit(42);
        },
        large);
    if (undoing) datapath->offers.setDevices({});
    std::this_thread::sleep_for(std::chrono::seconds(10));
    ::_exit(1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  REQUIRE(WEXITSTATUS(status) == 42);
  SECTION("of a device that is made again") {
    const auto datapath = node.start([](auto) {}, large);
    CHECK(node.waitMade(kLarge));
    datapath->offers.setDevices({});
    CHECK(node.waitParentMtu("1500"));
  }
  SECTION("of one that is not wanted any more") {
    if (node.made("mtu").empty()) return;  // it was not changed
    node.offered = false;
    const auto datapath = node.start();
    CHECK(node.waitParentMtu("1500"));
  }
}

TEST_CASE("a device without a MAC gets the one that is chosen for its pod") {
  MadeNode node;
  const auto datapath = node.start();
  REQUIRE(node.waitMade(kOwn));
  const auto live = datapath->attachments.attach(requestOf("", 0), kNever);
  CHECK(node.made("mac") == live.attachment.port.mac->text());
  CHECK_FALSE(node.made("mac").empty());
  CHECK(datapath->attachments.detach(kOwner.key()));
  CHECK(node.waitMade(kOwn));
}

TEST_CASE("what nobody asked for, or the worker offers by itself, refuses no pod") {
  MadeNode node;
  const auto datapath = node.start();
  REQUIRE(node.waitMade(kOwn));
  SECTION("a MAC that was chosen") {
    node.refusesMac = true;
    CHECK(datapath->attachments.attach(requestOf("", 0), kNever).attachment.port.mac);
  }
  SECTION("an MTU below the device's") {
    node.leastMtu = 1500;
    CHECK(datapath->attachments.attach(requestOf(kMac, 1400), kNever).attachment.port.mtu == 1400);
    CHECK(node.made("mac") == kMac);
  }
}

TEST_CASE("what is refused otherwise costs no remake") {
  MadeNode node;
  const auto datapath = node.start();
  REQUIRE(node.waitMade(kOwn));
  auto request = requestOf(kMac, 9000);
  request.settings.vlan = 100;
  CHECK_THROWS_WITH(datapath->attachments.attach(request, kNever), Catch::Contains("vlan 100"));
  CHECK(node.removed == 0);
  CHECK(node.made("with") == kOwn);
}

TEST_CASE("what the kernel refuses is reported, and the device is free with its own attributes") {
  MadeNode node;
  const auto datapath = node.start();
  REQUIRE(node.waitMade(kOwn));
  CHECK_THROWS_WITH(datapath->attachments.attach(requestOf(kMac, 9001), kNever),
                    "cannot set up nic-0: Invalid argument");
  CHECK(node.waitMade("all queue pairs, mtu 1500, all features"));  // the parent's MTU
  CHECK(datapath->status.list().empty());
  CHECK(datapath->attachments.attach(requestOf(kMac, 1500), kNever).attachment.port.mac->text() ==
        kMac);
}

TEST_CASE("a crash at every step of a remake leaves a device that the next pod can have") {
  const std::string step = GENERATE("before remove", "after remove", "before add", "after add",
                                    "worker started", "recorded", "engine");
  const unsigned mtu = GENERATE(0u, 9000u);
  INFO(step << ", mtu " << mtu);
  // The parent's MTU is restored.
  const std::string own = mtu == 0 ? kOwn : "all queue pairs, mtu 1500, all features";
  MadeNode node;
  { REQUIRE((node.start(), node.waitMade(kOwn))); }
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      node.start([&](std::string_view at) {
            if (at == step) ::_exit(42);
          })
          ->attachments.attach(requestOf(kMac, mtu), kNever);
    } catch (...) {
    }
    ::_exit(1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  REQUIRE(WEXITSTATUS(status) == 42);

  const auto datapath = node.start();
  CHECK(node.waitMade(own));
  CHECK(datapath->status.list().empty());
  CHECK(datapath->attachments.attach(requestOf(kMac, mtu), kNever).attachment.port.mac->text() ==
        kMac);
  CHECK(node.made("mac") == kMac);
  CHECK(datapath->attachments.detach(kOwner.key()));
  CHECK(node.waitMade(own));
}

TEST_CASE("a pod keeps its device as it is over a restart and a change of the configuration") {
  MadeNode node;
  {
    const auto datapath = node.start();
    REQUIRE(node.waitMade(kOwn));
    datapath->attachments.attach(requestOf(kMac, 0), kNever);
  }
  const std::string withMac = node.made("with");
  const auto datapath = node.start();
  auto changed = MadeNode::device();
  changed.attributes.mtu = 9000;
  datapath->offers.setDevices({{"vdpa.io/nic", {}, {}, {{"nic-0", changed}}}});
  waitHealthy(*datapath);
  CHECK(node.made("with") == withMac);
  CHECK(datapath->attachments.detach(kOwner.key()));
  CHECK(node.waitMade("all queue pairs, mtu 9000, all features"));
}
