// vdpactl doctor
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/version.h"
#include "deviceplugin/ctl/client.h"
#include "deviceplugin/ctl/commands.h"
#include "deviceplugin/ctl/diagnosis.h"
#include "deviceplugin/ctl/doctor/checks.h"
#include "deviceplugin/ctl/doctor/finding.h"
#include "deviceplugin/ctl/doctor/node.h"
#include "deviceplugin/ctl/doctor/probes.h"
#include "deviceplugin/ctl/holders.h"

namespace vdpa::ctl {
namespace {

const char* nameOf(Verdict verdict) {
  switch (verdict) {
    case Verdict::pass:
      return "PASS";
    case Verdict::warn:
      return "WARN";
    case Verdict::fail:
      return "FAIL";
    case Verdict::unseen:
      return "UNSEEN";
  }
  return "";
}

void askDatapath(const Options& options, Diagnosis& diagnosis) {
  Answers& answers = diagnosis.answers;
  try {
    diagnosis.datapathList = DatapathClient(options.datapathSocket).list();
  } catch (const std::runtime_error& error) {
    answers.datapathError = error.what();
    return;
  }
  const auto& list = diagnosis.datapathList;
  answers.notReady = list.not_ready();
  for (const auto& device : list.devices())
    answers.devices.push_back({device.id(), device.resource(), device.healthy(), device.reason()});
  answers.versions["vdpa-datapath"] = list.version();
  for (const auto& [engine, version] : list.engine_versions()) answers.versions[engine] = version;
  for (const auto& attachment : list.attachments()) {
    if (attachment.owner().container_id().empty())
      answers.withheld.push_back(attachment.device_id());
    else if (!attachment.worker_version().empty())
      answers.versions["vdpa-worker of " + attachment.device_id()] = attachment.worker_version();
  }
}

void askPlugin(const Options& options, Diagnosis& diagnosis) {
  Answers& answers = diagnosis.answers;
  try {
    diagnosis.pluginList = listVerdicts(options);
  } catch (const std::runtime_error& error) {
    answers.pluginError = error.what();
    return;
  }
  for (const auto& resource : diagnosis.pluginList.resources())
    answers.resources.push_back({resource.name(), resource.registered(), resource.devices()});
  answers.versions["vdpa-device-plugin"] = diagnosis.pluginList.version();
}

}  // namespace

Options below(const std::string& root, Options options) {
  for (auto* path : {&options.datapathSocket, &options.pluginSocket, &options.podResources})
    *path = root + *path;
  return options;
}

Diagnosis diagnose(const Options& options, const DiagnosisOptions& wanted) {
  if (::geteuid() != 0)
    throw std::runtime_error(
        "only root sees the node's sockets, processes and files; run vdpactl as root");
  Diagnosis diagnosis{
      wanted.root.empty() ? thisNode() : Node(Place::node, wanted.root), {}, {}, {}, {}};
  const Options there = below(wanted.root, options);
  askDatapath(there, diagnosis);
  askPlugin(there, diagnosis);
  diagnosis.answers.kubeletError = askKubelet(there.podResources).error;
  diagnosis.findings =
      examine(diagnosis.node, diagnosis.answers, wanted.paths, machineProbes(), programVersion());
  return diagnosis;
}

bool failed(const Diagnosis& diagnosis) {
  return std::any_of(diagnosis.findings.begin(), diagnosis.findings.end(),
                     [](const Finding& finding) { return finding.verdict == Verdict::fail; });
}

nlohmann::json toJson(const Diagnosis& diagnosis) {
  auto checks = nlohmann::json::array();
  for (const auto& finding : diagnosis.findings)
    checks.push_back({{"check", finding.check},
                      {"verdict", nameOf(finding.verdict)},
                      {"text", finding.text},
                      {"remedy", finding.remedy}});
  return {{"node", diagnosis.node.read("/proc/sys/kernel/hostname").value_or("")},
          {"place", diagnosis.node.place() == Place::node ? "node" : "container"},
          {"seesAll", diagnosis.node.seesAll()},
          {"version", programVersion()},
          {"failed", failed(diagnosis)},
          {"checks", checks}};
}

std::string toText(const Diagnosis& diagnosis) {
  std::string text;
  unsigned counts[4] = {};
  for (const auto& finding : diagnosis.findings) {
    ++counts[static_cast<size_t>(finding.verdict)];
    text += fmt::format("{:<6}  {:<9}  {}\n", nameOf(finding.verdict), finding.check, finding.text);
    if (!finding.remedy.empty()) text += fmt::format("{:19}remedy: {}\n", "", finding.remedy);
  }
  text += fmt::format("{} passed, {} warnings, {} failed", counts[0], counts[1], counts[2]);
  if (counts[3] > 0)
    text += fmt::format("; {} not visible from here: run vdpactl on the node for these", counts[3]);
  return text + "\n";
}

bool doctor(const Options& options, const DiagnosisOptions& wanted) {
  const Diagnosis diagnosis = diagnose(options, wanted);
  if (options.output == Output::json)
    fmt::print("{}\n", anyJsonText(toJson(diagnosis), 2));
  else
    fmt::print("{}", toText(diagnosis));
  return !failed(diagnosis);
}

}  // namespace vdpa::ctl
