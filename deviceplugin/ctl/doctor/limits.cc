// Limits of memory to pin, of open files and of mappings.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "deviceplugin/ctl/doctor/checks.h"
#include "deviceplugin/ctl/doctor/finding.h"
#include "deviceplugin/ctl/doctor/node.h"

namespace vdpa::ctl {
namespace {

constexpr unsigned kResourceBit = 24;  // CAP_SYS_RESOURCE, of include/uapi/linux/capability.h
// A port of one queue pair: deviceplugin/datapath/switch/ports/capacity.cc.
constexpr uint64_t kFilesPerPort = 6, kOwnFiles = 128;
constexpr uint64_t kMappingsPerPort = 8, kOwnMappings = 512;

uint64_t numberIn(const std::string& text, int base = 10) {
  uint64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number, base);
  return number;
}

// The hard limit of a row of /proc/PID/limits; UINT64_MAX: unlimited.
std::optional<uint64_t> hardLimit(const Node& node, const std::string& pid,
                                  const std::string& row) {
  std::istringstream lines(node.read("/proc/" + pid + "/limits").value_or(""));
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(row)) continue;
    std::istringstream words(line.substr(row.size()));
    std::string soft, hard;
    words >> soft >> hard;
    if (hard == "unlimited") return UINT64_MAX;
    return numberIn(hard);
  }
  return std::nullopt;
}

std::string datapathOf(const Node& node) {
  for (const auto& process : node.processes())
    if (process.name == "vdpa-datapath") return process.pid;
  return "";
}

Finding memlock(const Node& node) {
  if (!hasVdpaHardware(node))
    return {"memlock", Verdict::pass, "no vDPA hardware; software ports pin no memory"};
  const std::string pid = datapathOf(node);
  const auto limit = hardLimit(node, pid, "Max locked memory");
  if (pid.empty() || !limit)
    return {"memlock", Verdict::unseen, "vdpa-datapath's limit cannot be seen from here"};
  auto status = node.statusOf(pid);
  const bool raises = (numberIn(status["CapEff"], 16) >> kResourceBit & 1) != 0;
  if (raises || *limit == UINT64_MAX)
    return {"memlock", Verdict::pass, "vdpa-datapath's processes may pin any amount of memory"};
  return {
      "memlock", Verdict::warn,
      fmt::format("vdpa-datapath's processes may pin {} KiB, and all of a pod's memory is pinned "
                  "for a vDPA device",
                  *limit >> 10),
      "install manifests/hardware, whose vdpa-datapath may raise the limit, or raise "
      "LimitMEMLOCK of the container runtime"};
}

Finding files(const Node& node, const Answers& answers) {
  const std::string pid = datapathOf(node);
  const auto limit = hardLimit(node, pid, "Max open files");
  if (pid.empty() || !limit)
    return {"limits", Verdict::unseen, "vdpa-datapath's limits cannot be seen from here"};
  std::map<std::string, uint64_t> ports;  // by resource: each has a switch of its own
  for (const auto& device : answers.devices) ++ports[device.resource];
  uint64_t most = 0;
  for (const auto& [resource, number] : ports) most = std::max(most, number);
  const uint64_t mappings = numberIn(node.read("/proc/sys/vm/max_map_count").value_or("0"));
  const uint64_t needFiles = kOwnFiles + kFilesPerPort * most;
  const uint64_t needMappings = kOwnMappings + kMappingsPerPort * most;
  if (*limit < needFiles)
    return {
        "limits", Verdict::warn,
        fmt::format("vdpa-datapath's processes may open {} files, and a switch of {} ports needs "
                    "{}",
                    *limit, most, needFiles),
        "raise LimitNOFILE of the container runtime"};
  if (mappings != 0 && mappings < needMappings)
    return {"limits", Verdict::warn,
            fmt::format("vm.max_map_count is {}, and a switch of {} ports needs {}", mappings, most,
                        needMappings),
            fmt::format("`sysctl vm.max_map_count={}` on the node, and a file of /etc/sysctl.d",
                        needMappings)};
  return {"limits", Verdict::pass,
          fmt::format("{} open files, {} mappings",
                      *limit == UINT64_MAX ? "any number of" : std::to_string(*limit), mappings)};
}

}  // namespace

std::vector<Finding> examineLimits(const Node& node, const Answers& answers) {
  return {memlock(node), files(node, answers)};
}

}  // namespace vdpa::ctl
