// The checks of `vdpactl doctor` on a faked node: a good one passes all, and one change of it makes
// one check warn, fail or say that it cannot see.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/unique_fd.h"
#include "common/unix_socket.h"
#include "deviceplugin/ctl/doctor/checks.h"
#include "deviceplugin/ctl/doctor/finding.h"
#include "deviceplugin/ctl/doctor/node.h"
#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa;
using namespace vdpa::ctl;

namespace {

namespace fs = std::filesystem;

constexpr const char* kAllCapabilities = "000001ffffffffff";
constexpr const char* kChown = "0000000000000001";

// A node with software ports, without vDPA hardware.
class Tree {
 public:
  Tree() {
    write("/proc/sys/kernel/osrelease", "6.12.30+deb13-amd64\n");
    write("/proc/sys/vm/max_map_count", "65530\n");
    write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0\n");
    write("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0\n");
    write("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    write("/sys/fs/cgroup/vdpa/cgroup.controllers", "cpu io memory\n");
    addProcess("100", "vdpa-datapath", kChown, "2", "1048576", "8388608");
    addProcess("101", "vdpa-device-plu", "0", "2", "1048576", "8388608");
    write("/opt/cni/bin/vdpa", "program");
    write("/etc/cni/net.d/00-multus.conf", R"({"type": "multus-shim", "name": "m"})");
    write("/etc/cni/net.d/10-flannel.conflist", R"({"plugins": [{"type": "flannel"}]})");
    fs::create_directories(path("/run/vdpa/devices/nic-0"));
    fs::create_directories(path("/var/lib/vdpa"));
    fs::create_directories(path("/var/lib/kubelet/device-plugins"));
    listener_ = listenUnix(path("/var/lib/kubelet/device-plugins/kubelet.sock"), 0600);
    answers.devices = {{"nic-0", "vdpa.io/nic", true, ""}};
    answers.resources = {{"vdpa.io/nic", true, 1}};
    answers.versions = {{"vdpa-datapath", "0.2.0"},
                        {"vdpa-device-plugin", "0.2.0"},
                        {"vdpa-worker of nic-0", "0.2.0"}};
  }

  std::string path(const std::string& name) const { return directory_.path() + name; }
  void write(const std::string& name, const std::string& content) {
    fs::create_directories(fs::path(path(name)).parent_path());
    std::ofstream(path(name)) << content;
  }
  void remove(const std::string& name) { fs::remove_all(path(name)); }
  void addProcess(const std::string& pid, const std::string& comm, const std::string& capabilities,
                  const std::string& seccomp, const std::string& files,
                  const std::string& memlock) {
    write("/proc/" + pid + "/comm", comm + "\n");
    write("/proc/" + pid + "/status",
          "Name:\t" + comm + "\nCapEff:\t" + capabilities + "\nSeccomp:\t" + seccomp + "\n");
    write("/proc/" + pid + "/limits",
          "Limit                     Soft Limit           Hard Limit           Units     \n"
          "Max open files            1024                 " +
              files + "              files     \nMax locked memory         8388608              " +
              memlock + "              bytes     \n");
  }
  // A function of Intel's N3000 or, with mlx5_core, a VF of a ConnectX.
  void addVf(const std::string& driver = "ifcvf") {
    const bool mlx5 = driver == "mlx5_core";
    const std::string function = "/sys/bus/pci/devices/0000:65:00.2/";
    write(function + "vendor", mlx5 ? "0x15b3\n" : "0x1af4\n");
    write(function + "device", mlx5 ? "0x101e\n" : "0x1041\n");
    write(function + "subsystem_vendor", mlx5 ? "0x15b3\n" : "0x8086\n");
    write(function + "subsystem_device", mlx5 ? "0x0058\n" : "0x001a\n");
    fs::create_directories(path("/sys/bus/pci/drivers/" + driver));
    fs::create_symlink("../../drivers/" + driver, path(function + "driver"));
  }
  void loadModules() {
    fs::create_directories(path("/sys/bus/vdpa/drivers/vhost_vdpa"));
    fs::create_directories(path("/sys/module/ifcvf"));
    fs::create_directories(path("/sys/module/mlx5_vdpa"));
    fs::create_directories(path("/sys/kernel/iommu_groups/0"));
  }

  std::vector<Finding> examined() {
    const Probes probes{[this](const std::string&) { return space; },
                        [this](const std::string&) { return cniVersion; },
                        [this](const std::string&) { return label; }};
    const Node node = place == Place::node ? Node(place, directory_.path())
                                           : Node(place, directory_.path(), hostRoot);
    return examine(node, answers, {}, probes, "0.2.0");
  }
  Finding check(const std::string& name) {
    for (const auto& finding : examined())
      if (finding.check == name) return finding;
    return {};
  }

  Answers answers;
  Place place = Place::node;
  std::string hostRoot;
  std::optional<Probes::Space> space = Probes::Space{uint64_t{1} << 30, 100000, false};
  std::string cniVersion = "0.2.0";
  std::string label;

 private:
  TemporaryDirectory directory_;
  UniqueFd listener_;
};

struct Row {
  const char* check;
  std::function<void(Tree&)> change;
  Verdict verdict;
  const char* words;
};

const std::vector<Row>& rows() {
  static const std::vector<Row> all{
      {"kernel", [](Tree& t) { t.write("/proc/sys/kernel/osrelease", "5.2.0\n"); }, Verdict::fail,
       "5.3 is the first"},
      {"kernel",
       [](Tree& t) {
         t.addVf();
         t.write("/proc/sys/kernel/osrelease", "5.17.3\n");
       },
       Verdict::fail, "5.18 is the first"},
      {"kernel", [](Tree& t) { t.remove("/proc/sys"); }, Verdict::unseen, "cannot be read"},
      {"modules", [](Tree& t) { t.addVf(); }, Verdict::fail, "vhost_vdpa ifcvf"},
      {"modules",
       [](Tree& t) {
         t.addVf();
         t.loadModules();
         t.remove("/sys/module/ifcvf");
       },
       Verdict::fail, "not loaded: ifcvf"},
      {"modules", [](Tree& t) { t.addVf("mlx5_core"); }, Verdict::warn, "vhost_vdpa mlx5_vdpa"},
      {"modules",
       [](Tree& t) {
         t.addVf("mlx5_core");
         t.loadModules();
       },
       Verdict::pass, "drivers of this node's functions"},
      {"modules", [](Tree& t) { t.addVf("virtio-pci"); }, Verdict::pass, "no vDPA hardware"},
      {"modules", [](Tree& t) { t.write("/sys/bus/vdpa/devices/vdpa0/driver_override", ""); },
       Verdict::fail, "not loaded: vhost_vdpa"},
      {"iommu", [](Tree& t) { t.addVf(); }, Verdict::warn, "no IOMMU"},
      {"iommu", [](Tree& t) { t.addVf("vfio-pci"); }, Verdict::fail, "bound to vfio-pci"},
      {"iommu",
       [](Tree& t) {
         t.addVf();
         t.loadModules();
       },
       Verdict::pass, "1 groups"},
      {"hugepages",
       [](Tree& t) { t.write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "64\n"); },
       Verdict::warn, "0 of 64 pages of 2048kB are free"},
      {"hugepages",
       [](Tree& t) {
         t.write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "64\n");
         t.write("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "1\n");
       },
       Verdict::pass, "1 of 64"},
      {"memlock", [](Tree& t) { t.addVf(); }, Verdict::warn, "may pin 8192 KiB"},
      {"memlock",
       [](Tree& t) {
         t.addVf();
         t.addProcess("100", "vdpa-datapath", kAllCapabilities, "0", "1048576", "8388608");
       },
       Verdict::pass, "any amount"},
      {"memlock",
       [](Tree& t) {
         t.addVf();
         t.remove("/proc/100");
       },
       Verdict::unseen, "cannot be seen"},
      {"limits",
       [](Tree& t) {
         t.addProcess("100", "vdpa-datapath", kChown, "2", "1000", "8388608");
         t.answers.devices.assign(200, {"nic-0", "vdpa.io/nic", true, ""});
       },
       Verdict::warn, "may open 1000 files, and a switch of 200 ports needs 1328"},
      {"limits",
       [](Tree& t) {
         t.write("/proc/sys/vm/max_map_count", "2000\n");
         t.answers.devices.assign(200, {"nic-0", "vdpa.io/nic", true, ""});
       },
       Verdict::warn, "vm.max_map_count is 2000, and a switch of 200 ports needs 2112"},
      {"cgroups", [](Tree& t) { t.remove("/sys/fs/cgroup/vdpa"); }, Verdict::warn,
       "the cgroup vdpa is missing"},
      {"cgroups", [](Tree& t) { t.write("/sys/fs/cgroup/vdpa/cgroup.controllers", "cpu\n"); },
       Verdict::warn, "lacks the controller memory"},
      {"cgroups",
       [](Tree& t) {
         t.remove("/sys/fs/cgroup");
         t.write("/sys/fs/cgroup/memory/vdpa/cgroup.procs", "");
       },
       Verdict::pass, "cgroup v1"},
      {"cgroups",
       [](Tree& t) {
         t.remove("/sys/fs/cgroup");
         t.write("/sys/fs/cgroup/memory/cgroup.procs", "");
       },
       Verdict::warn, "memory/vdpa is missing"},
      {"cgroups", [](Tree& t) { t.remove("/sys/fs/cgroup"); }, Verdict::fail, "neither"},
      {"cgroups", [](Tree& t) { t.place = Place::container; }, Verdict::unseen, "not mounted"},
      {"cgroups",
       [](Tree& t) {
         t.place = Place::container;
         t.write("/host/cgroup/cgroup.controllers", "cpu memory\n");
         t.write("/host/cgroup/vdpa/cgroup.controllers", "cpu memory\n");
       },
       Verdict::pass, "cgroup v2"},
      {"seccomp", [](Tree& t) { t.addProcess("102", "vdpa-worker", "0", "0", "1024", "8388608"); },
       Verdict::warn, "vdpa-worker (process 102) runs without a profile"},
      {"seccomp",
       [](Tree& t) {
         t.addProcess("100", "vdpa-datapath", kAllCapabilities, "0", "1024", "8388608");
       },
       Verdict::pass, "privileged container"},
      {"seccomp",
       [](Tree& t) {
         t.remove("/proc/100");
         t.remove("/proc/101");
       },
       Verdict::unseen, "no process"},
      {"seccomp", [](Tree& t) { t.write("/proc/100/status", "Name:\tvdpa-datapath\n"); },
       Verdict::fail, "no seccomp"},
      {"selinux", [](Tree& t) { t.write("/sys/fs/selinux/enforce", "0"); }, Verdict::pass,
       "permissive"},
      {"selinux", [](Tree& t) { t.write("/sys/fs/selinux/enforce", "1"); }, Verdict::warn,
       "has the label none"},
      {"selinux",
       [](Tree& t) {
         t.write("/sys/fs/selinux/enforce", "1");
         t.label = "system_u:object_r:container_file_t:s0";
       },
       Verdict::pass, "labelled for pods"},
      {"selinux",
       [](Tree& t) {
         t.write("/proc/self/attr/current", "system_u:system_r:spc_t:s0");
         t.remove("/run/vdpa/devices/nic-0");
       },
       Verdict::warn, "perhaps enforcing"},
      {"cni", [](Tree& t) { t.remove("/opt/cni/bin"); }, Verdict::fail, "/opt/cni/bin is missing"},
      {"cni", [](Tree& t) { t.remove("/opt/cni/bin/vdpa"); }, Verdict::fail,
       "/opt/cni/bin/vdpa is missing"},
      {"cni", [](Tree& t) { t.cniVersion = ""; }, Verdict::fail, "cannot be run"},
      {"cni", [](Tree& t) { t.cniVersion = "0.1.0"; }, Verdict::warn, "version 0.1.0"},
      {"cni",
       [](Tree& t) {
         t.place = Place::container;
         t.remove("/opt/cni/bin");
       },
       Verdict::unseen, "not mounted here"},
      {"multus", [](Tree& t) { t.remove("/etc/cni/net.d/00-multus.conf"); }, Verdict::fail,
       "no configuration"},
      {"multus", [](Tree& t) { t.write("/etc/cni/net.d/00-a.conf", R"({"type": "a"})"); },
       Verdict::fail, "00-a.conf comes before Multus's 00-multus.conf"},
      {"multus",
       [](Tree& t) {
         t.write("/etc/cni/net.d/00-a.conflist", R"({"plugins": [{"type": "multus"}]})");
       },
       Verdict::pass, "00-a.conflist"},
      {"multus", [](Tree& t) { t.write("/etc/cni/net.d/00-multus.conf", "[not JSON"); },
       Verdict::fail, "no configuration"},
      {"kubelet", [](Tree& t) { t.answers.kubeletError = "cannot connect"; }, Verdict::fail,
       "cannot connect"},
      {"kubelet", [](Tree& t) { t.remove("/var/lib/kubelet/device-plugins/kubelet.sock"); },
       Verdict::fail, "kubelet.sock is missing"},
      {"kubelet",
       [](Tree& t) {
         t.place = Place::container;
         t.remove("/var/lib/kubelet/device-plugins");
       },
       Verdict::pass, "it answers"},
      {"disk", [](Tree& t) { t.space->free = 10 << 20; }, Verdict::warn, "10 MiB"},
      {"disk", [](Tree& t) { t.space->free = 1 << 20; }, Verdict::fail, "1 MiB"},
      {"disk", [](Tree& t) { t.space->files = 3; }, Verdict::fail, "3 files"},
      {"disk", [](Tree& t) { t.space->readOnly = true; }, Verdict::fail, "read-only"},
      {"disk", [](Tree& t) { t.space.reset(); }, Verdict::unseen, "missing"},
      {"datapath", [](Tree& t) { t.answers.datapathError = "no answer"; }, Verdict::fail,
       "no answer"},
      {"datapath", [](Tree& t) { t.answers.notReady = "drained"; }, Verdict::fail, "drained"},
      {"datapath", [](Tree& t) { t.answers.withheld = {"nic-0"}; }, Verdict::fail, "nic-0"},
      {"plugin", [](Tree& t) { t.answers.pluginError = "no answer"; }, Verdict::fail, "no answer"},
      {"plugin", [](Tree& t) { t.answers.resources.clear(); }, Verdict::warn, "no resource"},
      {"plugin", [](Tree& t) { t.answers.resources[0].registered = false; }, Verdict::fail,
       "vdpa.io/nic is not registered"},
      {"devices",
       [](Tree& t) {
         t.answers.devices[0].healthy = false;
         t.answers.devices[0].reason = "the link is down";
       },
       Verdict::warn, "1 of 1 are unhealthy; nic-0: the link is down"},
      {"devices", [](Tree& t) { t.answers.datapathError = "no answer"; }, Verdict::unseen,
       "did not answer"},
      {"versions", [](Tree& t) { t.answers.versions["vdpa-worker of nic-1"] = "0.1.0"; },
       Verdict::warn, "vdpa-worker of nic-1 0.1.0"},
      {"versions", [](Tree& t) { t.answers.versions["vdpa-datapath"] = ""; }, Verdict::warn,
       "vdpa-datapath of an unknown version"},
  };
  return all;
}

}  // namespace

TEST_CASE("a good node passes every check") {
  Tree tree;
  const auto findings = tree.examined();
  CHECK(findings.size() == 17);
  for (const auto& finding : findings) {
    INFO(finding.check << ": " << finding.text);
    CHECK(finding.verdict == Verdict::pass);
    CHECK(finding.remedy.empty());
  }
}

TEST_CASE("each check tells a bad node") {
  for (const auto& row : rows()) {
    Tree tree;
    row.change(tree);
    const Finding finding = tree.check(row.check);
    INFO(row.check << ": " << finding.text);
    CHECK(finding.verdict == row.verdict);
    CHECK_THAT(finding.text, Catch::Contains(row.words));
    // What is wrong has a remedy; what cannot be seen has none.
    CHECK((finding.verdict == Verdict::warn || finding.verdict == Verdict::fail) ==
          !finding.remedy.empty());
  }
}

TEST_CASE("every check is seen to warn or fail") {
  Tree tree;
  for (const auto& finding : tree.examined())
    CHECK(std::any_of(rows().begin(), rows().end(), [&](const Row& row) {
      return row.check == finding.check && row.verdict != Verdict::pass &&
             row.verdict != Verdict::unseen;
    }));
}

TEST_CASE("a privileged container sees the node through its first process") {
  Tree tree;
  tree.place = Place::container;
  TemporaryDirectory host;
  tree.hostRoot = host.path();
  tree.remove("/opt/cni/bin");
  CHECK(tree.check("cni").verdict == Verdict::fail);
  fs::create_directories(host.path() + "/opt/cni/bin");
  std::ofstream(host.path() + "/opt/cni/bin/vdpa") << "program";
  CHECK(tree.check("cni").verdict == Verdict::pass);
}

TEST_CASE("processes are found by the name that the kernel keeps") {
  Tree tree;
  tree.addProcess("102", "vdpa-switch-dpd", "0", "2", "1024", "0");
  tree.addProcess("103", "vdpa-switchboar", "0", "2", "1024", "0");
  const Node node(Place::node, tree.path(""));
  std::vector<std::string> names;
  for (const auto& process : node.processes()) names.push_back(process.name);
  CHECK(names ==
        std::vector<std::string>{"vdpa-datapath", "vdpa-device-plugin", "vdpa-switch-dpdk"});
}
