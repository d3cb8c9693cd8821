// vdpa-datapath: manages which pod has which device of this node, and the processes that serve the
// devices. Instance puts it together.
#include <fmt/format.h>
#include <malloc.h>
#include <signal.h>

#include <cctype>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "common/atomic_file.h"
#include "common/command_line.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/mac_address.h"
#include "common/netlink/vdpa_netlink.h"
#include "common/node_memory.h"
#include "common/pod_resources.h"
#include "common/resource_limit.h"
#include "common/vdpa_attributes.h"
#include "common/version.h"
#include "deviceplugin/datapath/attachments/node.h"
#include "deviceplugin/datapath/instance.h"
#include "deviceplugin/datapath/model/programs.h"
#include "deviceplugin/datapath/processes/cgroup.h"
#include "deviceplugin/datapath/processes/process.h"

namespace vdpa::datapath {
namespace {

std::vector<std::string> workerDirectories(const std::vector<std::string>& given) {
  if (given.empty())
    return {std::filesystem::read_symlink("/proc/self/exe").parent_path().string()};
  std::vector<std::string> directories;
  for (const auto& list : given) {
    std::istringstream parts(list);
    for (std::string part; std::getline(parts, part, ':');)
      if (!part.empty()) directories.push_back(part);
  }
  return directories;
}

std::string bootId() {
  std::string id = readFile("/proc/sys/kernel/random/boot_id");
  while (!id.empty() && std::isspace(static_cast<unsigned char>(id.back()))) id.pop_back();
  return id;
}

// Best effort: workers and switches also run without a limit.
void limitMemory(const std::string& cgroupRoot, uint64_t megabytes) {
  if (cgroupRoot.empty()) return;
  try {
    limitOwnCgroup(cgroupRoot, megabytes << 20);
  } catch (const std::exception& error) {
    log::warn("workers and switches have no memory limit: {}", error.what());
  }
}

// Best effort too. False while huge pages that were reserved before (release 0.1.0 has no such
// limit) are charged: then it is to be called again, with another log level.
bool limitHugePages(const std::string& cgroupRoot, log::Level level) {
  bool busy = false;
  try {
    std::vector<std::string> reasons;
    for (const auto& failure : reserveNoHugePages(cgroupRoot)) {
      reasons.emplace_back(failure.what());
      if (failure.code() == std::errc::device_or_resource_busy) busy = true;
    }
    if (reasons.empty()) return true;
    log::at(level, "a pod's memory can make a switch reserve the node's free huge pages: {}{}",
            fmt::join(reasons, "; "),
            busy ? "; retrying until the pods that have reserved such pages end" : "");
  } catch (const std::exception& error) {
    log::at(level, "a pod's memory can make a switch reserve the node's free huge pages: {}",
            error.what());
  }
  return !busy;
}

bool retryHugePages(const std::string& cgroupRoot) {
  if (!limitHugePages(cgroupRoot, log::Level::debug)) return false;
  log::info("no switch can reserve huge pages from now on");
  return true;
}

int run(int argc, char** argv) {
  ::mallopt(M_ARENA_MAX, 2);  // gRPC's threads would each get an arena of their own
  CommandLine app{
      "Attaches this node's vDPA devices to pods: keeps their directories and owner records, and "
      "supervises the\nworker of every attached device and the switch of every software resource.\n"
      "Workers and switches outlive it: the next start adopts them.\n"};
  std::string runDir = "/run/vdpa", stateDir = "/var/lib/vdpa", metrics;
  std::string podResources = "/var/lib/kubelet/pod-resources/kubelet.sock";
  std::vector<std::string> workerDirs;
  Programs programs;
  app.option("--run-dir", runDir, "the devices' directories and all sockets").showDefault();
  app.option("--state-dir", stateDir, "owner records").showDefault();
  app.option("--worker-dir", workerDirs,
             "directories of vdpa-worker, vdpa-switch, vdpa-switch-dpdk and vdpa-pmd, separated by "
             "colons; default: that of this program");
  app.option("--cgroup-root", programs.cgroupRoot,
             "the host's cgroup file systems; in a container, workers and switches outlive it "
             "only with this and\nin the host's PID namespace");
  uint64_t memoryLimit = nodeMemory() / 2 >> 20;
  app.option(
         "--memory-limit", memoryLimit,
         "MiB that workers and switches may use together, including pods' memory that only they "
         "have touched;\n0: no limit [half of the node's]")
      .showDefault("");
  app.option("--pod-resources", podResources, "the kubelet's PodResources socket").showDefault();
  app.option("--sysfs", programs.sysfs, "where the kernel shows its devices").showDefault();
  app.option("--dev", programs.dev, "where their character devices are").showDefault();
  app.option("--metrics-address", metrics, "serve Prometheus metrics on host:port");
  unsigned releaseAfter = 30;
  app.option("--release-after", releaseAfter,
             "seconds after which an attachment is detached if its network namespace is gone and "
             "the kubelet\ndoesn't list the device for its pod")
      .showDefault();
  app.option("--log-level", programs.logLevel, "trace, debug, info, warning, error or off")
      .showDefault();
  app.option("--log-format", programs.logFormat, "text or json").showDefault();
  app.version(programVersion());
  if (const auto status = app.parse(argc, argv)) return *status;

  initLogging("vdpa-datapath", programs.logLevel, programs.logFormat);
  raiseDescriptorLimit();
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // before any thread: all of them inherit it

  const auto directories = workerDirectories(workerDirs);
  programs.worker = findProgram("vdpa-worker", directories);
  programs.vswitch = findProgram("vdpa-switch", directories);
  programs.vswitchDpdk = findProgram("vdpa-switch-dpdk", directories);
  programs.pmd = findProgram("vdpa-pmd", directories);
  limitMemory(programs.cgroupRoot, memoryLimit);
  const std::string& cgroupRoot = programs.cgroupRoot;
  std::function<bool()> unfinished;
  if (!cgroupRoot.empty() && !limitHugePages(cgroupRoot, log::Level::warn))
    unfinished = [&cgroupRoot] { return retryHugePages(cgroupRoot); };
  // VdpaNetlink serialises: the kernel has one vdpa lock anyway.
  VdpaNetlink netlink(std::chrono::seconds(10));
  VdpaNetlink reader(std::chrono::milliseconds(300));  // no call above waits for this one's turn
  const VdpaDevices vdpa{
      .add =
          [&netlink](const std::string& name, const std::string& managementDevice,
                     const VdpaAttributes& attributes) {
            return netlink.add(name, managementDevice, attributes);
          },
      .remove = [&netlink](const std::string& name) { netlink.remove(name); },
      .mac =
          [&netlink](const std::string& name) {
            const auto config = netlink.config(name);
            return config ? config->mac : std::nullopt;
          },
      .setMac = [&netlink](const std::string& name,
                           const MacAddress& mac) { return netlink.setMac(name, mac); },
      .mtu =
          [&netlink](const std::string& name) {
            const auto config = netlink.config(name);
            return config ? unsigned{config->mtu} : 0;
          },
      .queueEvents = [&reader](const std::string& name,
                               unsigned queues) { return reader.queueEvents(name, queues); }};
  const Instance instance(
      {.programs = programs,
       .paths = Paths(runDir, stateDir),
       .bootId = bootId(),
       .listPodDevices = [podResources] { return listPodDevices(podResources); },
       .vdpa = vdpa,
       .releaseAfter = std::chrono::seconds(releaseAfter)},
      metrics, std::move(unfinished));
  int signal = 0;
  ::sigwait(&ends, &signal);
  return 0;
}

}  // namespace
}  // namespace vdpa::datapath

int main(int argc, char** argv) {
  try {
    return vdpa::datapath::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "vdpa-datapath: %s\n", vdpa::withRemedy(error).c_str());
    return 1;
  }
}
