// The CNI plugin, Multus, the kubelet, and the disks of the state.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "common/json.h"
#include "deviceplugin/ctl/doctor/checks.h"
#include "deviceplugin/ctl/doctor/finding.h"
#include "deviceplugin/ctl/doctor/node.h"

namespace vdpa::ctl {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kEnough = 64 * kMiB, kLeast = 4 * kMiB;
constexpr uint64_t kFilesEnough = 1000, kFilesLeast = 50;

Finding unseen(const char* check, const std::string& path) {
  return {check, Verdict::unseen, path + " is not mounted here"};
}

Finding cni(const Node& node, const DoctorPaths& paths, const Probes& probes,
            const std::string& ownVersion) {
  const auto directory = node.hostPath(paths.cniDirectory);
  if (!directory) return unseen("cni", paths.cniDirectory);
  std::error_code error;
  if (!fs::is_directory(*directory, error))
    return {"cni", Verdict::fail, paths.cniDirectory + " is missing",
            "vdpactl doctor --cni-dir names another directory of CNI plugins; the manifests mount "
            "the same one for the init container install-cni"};
  const std::string program = *directory + "/vdpa";
  if (!fs::exists(program, error))
    return {"cni", Verdict::fail, paths.cniDirectory + "/vdpa is missing",
            "vdpa-datapath's init container install-cni puts it there: see that container's log"};
  const std::string version = probes.version(program);
  if (version.empty())
    return {"cni", Verdict::fail, paths.cniDirectory + "/vdpa cannot be run",
            "delete the node's vdpa-datapath pod: its init container installs the plugin again"};
  if (version != ownVersion)
    return {
        "cni", Verdict::warn,
        fmt::format("{}/vdpa has version {}, vdpactl {}", paths.cniDirectory, version, ownVersion),
        "delete the node's vdpa-datapath pod to update the node"};
  return {"cni", Verdict::pass, fmt::format("{}/vdpa {}", paths.cniDirectory, version)};
}

// Whether a configuration runs Multus, itself or first in a list.
bool runsMultus(const std::string& file) {
  const nlohmann::json config = tryParseJson(readText(file).value_or(""));
  const auto isMultus = [](const nlohmann::json& plugin) {
    const auto type = plugin.is_object() ? plugin.find("type") : plugin.end();
    return plugin.is_object() && type != plugin.end() && type->is_string() &&
           type->get<std::string>().starts_with("multus");
  };
  if (isMultus(config)) return true;
  const auto plugins = config.is_object() ? config.find("plugins") : config.end();
  return config.is_object() && plugins != config.end() && plugins->is_array() &&
         std::any_of(plugins->begin(), plugins->end(), isMultus);
}

Finding multus(const Node& node, const DoctorPaths& paths) {
  const auto directory = node.hostPath(paths.cniConfigurations);
  if (!directory) return unseen("multus", paths.cniConfigurations);
  std::vector<std::string> files;
  for (const auto& name : namesIn(*directory))
    if (name.ends_with(".conf") || name.ends_with(".conflist") || name.ends_with(".json"))
      files.push_back(name);
  const auto found = std::find_if(files.begin(), files.end(), [&](const std::string& name) {
    return runsMultus(*directory + "/" + name);
  });
  if (found == files.end())
    return {"multus", Verdict::fail,
            fmt::format("no configuration in {} runs Multus", paths.cniConfigurations),
            "install Multus 4.x; --cni-conf-dir names another directory"};
  if (found != files.begin())
    return {"multus", Verdict::fail,
            fmt::format("{} comes before Multus's {}: container runtimes take the first",
                        files.front(), *found),
            fmt::format("rename {}, so that Multus's file is first by name", files.front())};
  return {"multus", Verdict::pass, fmt::format("{}/{}", paths.cniConfigurations, *found)};
}

Finding kubelet(const Node& node, const Answers& answers, const DoctorPaths& paths) {
  if (!answers.kubeletError.empty())
    return {"kubelet", Verdict::fail, answers.kubeletError,
            "is the kubelet running, and is its directory " + paths.kubeletDirectory +
                "? --kubelet-dir and --pod-resources name others"};
  const std::string registration = paths.kubeletDirectory + "/device-plugins";
  const auto path = node.hostPath(registration);
  if (!path)
    return {"kubelet", Verdict::pass,
            "it answers; " + registration + " is not mounted here, see check plugin"};
  std::error_code error;
  if (!fs::is_socket(*path + "/kubelet.sock", error))
    return {
        "kubelet", Verdict::fail, registration + "/kubelet.sock is missing",
        "is the kubelet's directory another one? The manifests mount it for vdpa-device-plugin"};
  return {"kubelet", Verdict::pass, "it answers, and takes registrations in " + registration};
}

Finding disk(const Node& node, const DoctorPaths& paths, const Probes& probes) {
  std::vector<std::string> parts;
  Finding worst{"disk", Verdict::pass, ""};
  for (const auto& directory : {paths.stateDirectory, paths.runDirectory}) {
    const auto path = node.hostPath(directory);
    const auto space = path ? probes.space(*path) : std::nullopt;
    if (!space) {
      if (worst.verdict == Verdict::pass) worst.verdict = Verdict::unseen;
      parts.push_back(directory + (path ? " is missing" : " is not mounted here"));
      continue;
    }
    const bool full = space->free < kLeast || space->files < kFilesLeast || space->readOnly;
    const bool low = space->free < kEnough || space->files < kFilesEnough;
    parts.push_back(fmt::format("{}: {} MiB and {} files free{}", directory, space->free / kMiB,
                                space->files, space->readOnly ? ", read-only" : ""));
    if (full)
      worst.verdict = Verdict::fail;
    else if (low && worst.verdict != Verdict::fail)
      worst.verdict = Verdict::warn;
  }
  worst.text = fmt::format("{}", fmt::join(parts, "; "));
  if (worst.verdict == Verdict::warn || worst.verdict == Verdict::fail)
    worst.remedy =
        "make room, or mount it writable: without it no device can be attached or detached";
  return worst;
}

}  // namespace

std::vector<Finding> examineKubernetes(const Node& node, const Answers& answers,
                                       const DoctorPaths& paths, const Probes& probes,
                                       const std::string& ownVersion) {
  return {cni(node, paths, probes, ownVersion), multus(node, paths), kubelet(node, answers, paths),
          disk(node, paths, probes)};
}

}  // namespace vdpa::ctl
