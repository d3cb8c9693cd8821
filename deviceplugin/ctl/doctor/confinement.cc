// Cgroups, seccomp and SELinux.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "deviceplugin/ctl/doctor/checks.h"
#include "deviceplugin/ctl/doctor/finding.h"
#include "deviceplugin/ctl/doctor/node.h"

namespace vdpa::ctl {
namespace {

// The node's cgroups: in vdpa-datapath's container they are mounted at the first.
std::optional<std::string> cgroupRoot(const Node& node) {
  if (node.place() == Place::container && node.exists("/host/cgroup"))
    return node.kernelPath("/host/cgroup");
  return node.hostOnlyPath("/sys/fs/cgroup");
}

bool contains(const std::string& words, const std::string& word) {
  return (" " + words + " ").find(" " + word + " ") != std::string::npos;
}

Finding cgroups(const Node& node) {
  const auto root = cgroupRoot(node);
  if (!root) return {"cgroups", Verdict::unseen, "the node's cgroups are not mounted here"};
  const char* remedy =
      "vdpa-datapath's init container make-cgroup makes it: see the log of that container";
  const auto names = namesIn(*root);
  const auto has = [&](const char* name) {
    return std::binary_search(names.begin(), names.end(), name);
  };
  if (has("cgroup.controllers")) {
    if (!has("vdpa"))
      return {"cgroups", Verdict::warn, "cgroup v2; the cgroup vdpa is missing", remedy};
    const std::string controllers = readText(*root + "/vdpa/cgroup.controllers").value_or("");
    for (const char* needed : {"cpu", "memory"})
      if (!contains(controllers, needed))
        return {
            "cgroups", Verdict::warn,
            fmt::format("cgroup v2; the cgroup vdpa lacks the controller {}: workers are not "
                        "limited in it",
                        needed),
            fmt::format("`echo +{} > /sys/fs/cgroup/cgroup.subtree_control` on the node", needed)};
    return {"cgroups", Verdict::pass, "cgroup v2; workers and switches are in the cgroup vdpa"};
  }
  if (!has("memory"))
    return {"cgroups", Verdict::fail, "there is neither cgroup v2 nor v1's memory hierarchy",
            "mount cgroup v2 at /sys/fs/cgroup"};
  if (namesIn(*root + "/memory/vdpa").empty())
    return {"cgroups", Verdict::warn, "cgroup v1; memory/vdpa is missing", remedy};
  return {"cgroups", Verdict::pass, "cgroup v1; workers and switches are in memory/vdpa"};
}

Finding seccomp(const Node& node) {
  const auto processes = node.processes();
  if (processes.empty())
    return {"seccomp", Verdict::unseen, "no process of this project can be seen from here"};
  // CAP_SYS_ADMIN, which only a privileged container of the manifests has.
  constexpr unsigned kAdminBit = 21;
  unsigned filtered = 0, privileged = 0;
  for (const auto& process : processes) {
    auto status = node.statusOf(process.pid);
    if (status.empty()) continue;  // it has ended
    const std::string& mode = status["Seccomp"];
    if (mode.empty())
      return {"seccomp", Verdict::fail, "this kernel has no seccomp",
              "install a kernel with CONFIG_SECCOMP_FILTER, as every distribution's has"};
    if (mode != "0") {
      ++filtered;
      continue;
    }
    const uint64_t capabilities = std::strtoull(status["CapEff"].c_str(), nullptr, 16);
    if ((capabilities >> kAdminBit & 1) == 0)
      return {"seccomp", Verdict::warn,
              fmt::format("{} (process {}) runs without a profile", process.name, process.pid),
              "seccompProfile: {type: RuntimeDefault} in its container's securityContext, as in "
              "manifests/base"};
    ++privileged;
  }
  if (privileged > 0)
    return {"seccomp", Verdict::pass,
            fmt::format("{} processes have a profile; {} run in a privileged container, which has "
                        "none",
                        filtered, privileged)};
  return {"seccomp", Verdict::pass, fmt::format("{} processes have a profile", filtered)};
}

Finding selinux(const Node& node, const DoctorPaths& paths, const Probes& probes) {
  std::string mode = node.read("/sys/fs/selinux/enforce").value_or("");
  if (mode.empty()) {
    // A container's /sys may hide it; a process then still has a label of four parts.
    const std::string label = node.read("/proc/self/attr/current").value_or("");
    if (std::count(label.begin(), label.end(), ':') < 3)
      return {"selinux", Verdict::pass, "not in use"};
    if (const auto file = node.hostOnlyPath("/sys/fs/selinux/enforce"))
      mode = readText(*file).value_or("");
  }
  if (mode == "0") return {"selinux", Verdict::pass, "permissive"};
  const std::string enforcing = mode == "1" ? "enforcing" : "in use, perhaps enforcing";
  const char* remedy =
      "set resources[].socket.selinuxLabel to a label that pods may use, such as "
      "system_u:object_r:container_file_t:s0";
  const std::string devices = paths.runDirectory + "/devices";
  const auto names = node.list(devices);
  if (names.empty())
    return {"selinux", Verdict::warn,
            enforcing + ", and no device shows yet whether pods may use its directory", remedy};
  for (const auto& name : names) {
    const std::string label = probes.selinuxLabel(node.kernelPath(devices + "/" + name));
    if (label.find(":container_file_t:") == std::string::npos)
      return {"selinux", Verdict::warn,
              fmt::format("{}, and {}/{} has the label {}: pods may not be allowed to connect",
                          enforcing, devices, name, label.empty() ? "none" : label),
              remedy};
  }
  return {"selinux", Verdict::pass, enforcing + "; the devices' directories are labelled for pods"};
}

}  // namespace

std::vector<Finding> examineConfinement(const Node& node, const DoctorPaths& paths,
                                        const Probes& probes) {
  return {cgroups(node), seccomp(node), selinux(node, paths, probes)};
}

}  // namespace vdpa::ctl
