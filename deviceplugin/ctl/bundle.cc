// vdpactl bundle
#include <fmt/core.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <ctime>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/errors.h"
#include "common/json.h"
#include "common/netlink/vdpa_netlink.h"
#include "common/unique_fd.h"
#include "common/version.h"
#include "deviceplugin/ctl/bundle/collect.h"
#include "deviceplugin/ctl/bundle/links.h"
#include "deviceplugin/ctl/bundle/tar_gz.h"
#include "deviceplugin/ctl/client.h"
#include "deviceplugin/ctl/commands.h"
#include "deviceplugin/ctl/diagnosis.h"
#include "deviceplugin/ctl/doctor/node.h"
#include "deviceplugin/ctl/holders.h"
#include "deviceplugin/ctl/output_file.h"

namespace vdpa::ctl {
namespace {

constexpr const char* kReadme =
    "What `vdpactl bundle` of vDPA for Kubernetes found on a node. doctor.txt is the place to "
    "start.\n"
    "It has no packets, no memory of pods and no environment variables; values that are named for\n"
    "secrets, tokens and private keys were replaced by <removed>. It has names of pods and\n"
    "networks, MAC and IP addresses: look through it before you publish it.\n";

std::string jsonOf(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  std::string text;
  (void)google::protobuf::util::MessageToJsonString(message, &text, options);
  return text;
}

// A file that `make()` may fail to make.
template <typename Make>
void attempt(Collection& collection, const std::string& name, const Make& make) {
  try {
    collection.add(name, make());
  } catch (const std::exception& error) {
    collection.note(fmt::format("{}: {}", name, error.what()));
  }
}

// Whether the network of this process is the node's. Network namespaces that were made later lack
// this file of the kernel: net_core_table of net/core/sysctl_net_core.c.
bool inFirstNetwork() {
  return ::access("/proc/sys/net/core/netdev_max_backlog", F_OK) == 0;
}

std::string vdpaNetlink() {
  const auto dump = VdpaNetlink().dump();
  nlohmann::json json{{"devices", nlohmann::json::array()},
                      {"managementDevices", nlohmann::json::array()},
                      {"problem", dump.problem}};
  for (const auto& device : dump.devices)
    json["devices"].push_back({{"name", device.name},
                               {"managementDevice", device.managementDevice},
                               {"maxVirtqueues", device.maxVirtqueues},
                               {"maxQueueSize", device.maxQueueSize},
                               {"maxQueuePairs", device.maxQueuePairs},
                               {"mac", device.mac ? device.mac->text() : ""},
                               {"mtu", device.mtu},
                               {"features", fmt::format("{:#x}", device.features)}});
  for (const auto& parent : dump.management)
    json["managementDevices"].push_back({{"name", parent.name},
                                         {"classes", fmt::format("{:#x}", parent.classes)},
                                         {"maxVirtqueues", parent.maxVirtqueues},
                                         {"features", fmt::format("{:#x}", parent.features)}});
  return anyJsonText(json, 1);
}

// Of this project's resources only.
std::string heldDevices(const Options& options, const Diagnosis& diagnosis) {
  auto array = nlohmann::json::array();
  for (const auto& [id, held] : askKubelet(options.podResources).byDevice)
    for (const auto& device : diagnosis.answers.devices)
      if (device.id == id && device.resource == held.resource)
        array.push_back({{"device", id},
                         {"resource", held.resource},
                         {"namespace", held.podNamespace},
                         {"pod", held.podName},
                         {"container", held.container}});
  return jsonText(array, 1);
}

Collection collect(const Options& options, const DiagnosisOptions& wanted) {
  const Diagnosis diagnosis = diagnose(options, wanted);
  const Options there = below(wanted.root, options);
  const Node& node = diagnosis.node;
  Collection collection;
  collection.add("README", fmt::format("{}\nvdpactl {}\n", kReadme, programVersion()));
  collection.add("doctor.txt", toText(diagnosis));
  collection.add("doctor.json", anyJsonText(toJson(diagnosis), 1));
  collection.add("datapath-list.json", jsonOf(diagnosis.datapathList));
  collection.add("plugin-list.json", jsonOf(diagnosis.pluginList));
  attempt(collection, "datapath-stats.json",
          [&] { return jsonOf(DatapathClient(there.datapathSocket).stats()); });
  attempt(collection, "kubelet-devices.json", [&] { return heldDevices(there, diagnosis); });
  attempt(collection, "netlink/links.json", [] { return anyJsonText(dumpLinks(), 1); });
  if (!inFirstNetwork())
    collection.note("netlink/links.json is of the container's network, not of the node's");
  attempt(collection, "netlink/vdpa.json", vdpaNetlink);
  collectRecords(node, wanted.paths, collection);
  collectConfigurations(node, wanted.paths, collection);
  collectProcesses(node, collection);
  collectKernel(node, collection);
  collectLogs(node, wanted.podNamespace, collection);
  collection.files["notes.txt"] = collection.notes;  // for which there is always room
  return collection;
}

int openOutput(const std::string& file) {
  if (file == "-") {
    if (::isatty(STDOUT_FILENO))
      throw std::runtime_error("standard output is a terminal: redirect it, or name a file");
    return checked(::dup(STDOUT_FILENO), "cannot duplicate standard output");
  }
  UniqueFd output = openOutputFile(file);
  if (::ftruncate(output.get(), 0) < 0 && errno != EINVAL)  // of a pipe or a device
    throw systemError(errno, "cannot write {}", file);
  return output.release();
}

}  // namespace

void bundle(const Options& options, const DiagnosisOptions& diagnosis, const std::string& file) {
  const int output = openOutput(file);  // first: collecting takes a while
  TarGz archive(output, file == "-" ? "standard output" : file);
  const Collection collection = collect(options, diagnosis);
  const std::time_t now = std::time(nullptr);
  for (const auto& [path, content] : collection.files)
    archive.add("vdpa-bundle/" + path, content, static_cast<uint64_t>(now));
  archive.finish();
  if (file != "-") fmt::print("{}: {} files\n", file, collection.files.size());
  if (!collection.notes.empty()) fmt::print(stderr, "not in the bundle:\n{}", collection.notes);
}

}  // namespace vdpa::ctl
