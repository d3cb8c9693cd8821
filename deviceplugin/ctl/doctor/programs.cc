// The daemons, their devices, and the versions of everything that runs.
#include <fmt/format.h>

#include <cstddef>
#include <string>
#include <vector>

#include "deviceplugin/ctl/doctor/checks.h"
#include "deviceplugin/ctl/doctor/finding.h"
#include "deviceplugin/ctl/doctor/node.h"

namespace vdpa::ctl {
namespace {

Finding datapath(const Answers& answers) {
  if (!answers.datapathError.empty())
    return {"datapath", Verdict::fail, answers.datapathError,
            "`kubectl -n vdpa-system get pods -o wide` shows its pod on this node; see that pod's "
            "log"};
  if (!answers.notReady.empty())
    return {"datapath", Verdict::fail, "it attaches no device: " + answers.notReady,
            "see the logs of vdpa-datapath and vdpa-device-plugin; after a drain, restart "
            "vdpa-datapath"};
  if (!answers.withheld.empty())
    return {"datapath", Verdict::fail,
            fmt::format("withheld, as their owner records cannot be read: {}",
                        fmt::join(answers.withheld, ", ")),
            "`vdpactl attachments` shows the reason; `vdpactl detach --force DEVICE` frees one"};
  return {"datapath", Verdict::pass, "it answers, and attaches devices"};
}

Finding plugin(const Answers& answers) {
  if (!answers.pluginError.empty())
    return {"plugin", Verdict::fail, answers.pluginError,
            "`kubectl -n vdpa-system get pods -o wide` shows its pod on this node; see that pod's "
            "log"};
  if (answers.resources.empty())
    return {"plugin", Verdict::warn, "it offers no resource on this node",
            "`vdpactl explain` shows why; the configuration is in the ConfigMap vdpa-config"};
  std::vector<std::string> registered;
  for (const auto& resource : answers.resources) {
    if (!resource.registered)
      return {"plugin", Verdict::fail, resource.name + " is not registered with the kubelet",
              "see vdpa-device-plugin's log; it tries again by itself"};
    registered.push_back(fmt::format("{} ({} devices)", resource.name, resource.devices));
  }
  return {"plugin", Verdict::pass,
          fmt::format("registered with the kubelet: {}", fmt::join(registered, ", "))};
}

Finding devices(const Answers& answers) {
  if (!answers.datapathError.empty())
    return {"devices", Verdict::unseen, "vdpa-datapath did not answer"};
  size_t unhealthy = 0;
  std::string first;
  for (const auto& device : answers.devices) {
    if (device.healthy) continue;
    if (unhealthy++ == 0) first = fmt::format("{}: {}", device.id, device.reason);
  }
  if (unhealthy > 0)
    return {"devices", Verdict::warn,
            fmt::format("{} of {} are unhealthy; {}", unhealthy, answers.devices.size(), first),
            "`vdpactl devices` shows the reason of each"};
  return {"devices", Verdict::pass, fmt::format("{}, all healthy", answers.devices.size())};
}

Finding versions(const Answers& answers, const std::string& ownVersion) {
  std::vector<std::string> all{"vdpactl " + ownVersion}, others;
  for (const auto& [program, version] : answers.versions) {
    const std::string entry =
        fmt::format("{} {}", program, version.empty() ? "of an unknown version" : version);
    // A worker serves its pod until the pod ends, whatever its version.
    if (program.starts_with("vdpa-worker") && version == ownVersion) continue;
    all.push_back(entry);
    if (version != ownVersion) others.push_back(entry);
  }
  const std::string text = fmt::format("{}", fmt::join(all, ", "));
  if (others.empty()) return {"versions", Verdict::pass, text};
  return {
      "versions", Verdict::warn, text,
      "delete the node's vdpa-datapath pod to update the node; workers of another version serve "
      "until their pods end"};
}

}  // namespace

std::vector<Finding> examinePrograms(const Answers& answers, const std::string& ownVersion) {
  return {datapath(answers), plugin(answers), devices(answers), versions(answers, ownVersion)};
}

std::vector<Finding> examine(const Node& node, const Answers& answers, const DoctorPaths& paths,
                             const Probes& probes, const std::string& ownVersion) {
  std::vector<Finding> findings = examineKernel(node);
  for (auto&& more : {examineLimits(node, answers), examineConfinement(node, paths, probes),
                      examineKubernetes(node, answers, paths, probes, ownVersion),
                      examinePrograms(answers, ownVersion)})
    findings.insert(findings.end(), more.begin(), more.end());
  return findings;
}

}  // namespace vdpa::ctl
