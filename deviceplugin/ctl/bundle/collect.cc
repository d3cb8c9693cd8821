#include "deviceplugin/ctl/bundle/collect.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "common/json.h"
#include "common/unique_fd.h"
#include "deviceplugin/ctl/bundle/redact.h"
#include "deviceplugin/ctl/doctor/checks.h"
#include "deviceplugin/ctl/doctor/node.h"

namespace vdpa::ctl {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFile = 1 << 20;            // bytes; of a longer one, its end
constexpr size_t kMaxFiles = 4096;              // of a directory tree
constexpr size_t kMaxPath = 80;                 // bytes
constexpr size_t kMaxConfiguration = 64 << 10;  // bytes, of vdpa-device-plugin

constexpr const char* kPods[] = {"vdpa-datapath-", "vdpa-device-plugin-", "vdpa-exporter-"};

// What is left of a file whose beginning is missing: from its first whole line, and without the
// rest of a key whose beginning is missing, by which it would be known.
void dropTorn(std::string& text) {
  text.erase(0, std::min(text.find('\n'), text.size() - 1) + 1);
  const size_t end = text.find("-----END");
  if (end != std::string::npos && text.rfind("-----BEGIN", end) == std::string::npos)
    text.erase(0, std::min(text.find('\n', end), text.size() - 1) + 1);
}

// A regular file's last bytes; nothing if it can't be read. A fifo or a link does not hold it up.
std::optional<std::string> endOf(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  struct stat status {};
  if (!file || ::fstat(file.get(), &status) < 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  const auto size = static_cast<size_t>(status.st_size);
  std::string text(std::min(size, kMaxFile), '\0');
  const ssize_t count =
      ::pread(file.get(), text.data(), text.size(), static_cast<off_t>(size - text.size()));
  if (count < 0) return std::nullopt;
  text.resize(static_cast<size_t>(count));
  if (size > kMaxFile && !text.empty()) dropTorn(text);
  return text;
}

// Adds all regular files below a directory of the node.
void addTree(const Node& node, const std::string& directory, const std::string& name,
             Collection& collection) {
  const auto root = node.hostPath(directory);
  if (!root) return collection.note(directory + " cannot be seen from here");
  std::error_code error;
  size_t files = 0;
  for (fs::recursive_directory_iterator entry(*root, error), end; !error && entry != end;
       entry.increment(error)) {
    if (std::error_code ignored; entry->symlink_status(ignored).type() != fs::file_type::regular)
      continue;
    if (++files > kMaxFiles)
      return collection.note(fmt::format("{} has more than {} files", directory, kMaxFiles));
    const std::string path = entry->path();
    const std::string relative = entry->path().lexically_relative(*root);
    if (const auto text = endOf(path))
      collection.add(name + "/" + relative, *text);
    else
      collection.note("cannot read " + path);
  }
  if (error) collection.note(fmt::format("cannot read {}: {}", directory, error.message()));
}

// Of the kernel's command line only what concerns devices and memory: it may hold anything.
std::string bootOptions(const std::string& line) {
  constexpr std::string_view kPrefixes[] = {
      "iommu",      "intel_iommu", "amd_iommu", "hugepages", "default_hugepagesz",
      "hugepagesz", "isolcpus",    "nohz_full", "pci",       "vfio",
      "mem"};
  std::istringstream words(line);
  std::string kept;
  for (std::string word; words >> word;)
    for (const auto prefix : kPrefixes)
      if (word.starts_with(prefix)) {
        kept += word + "\n";
        break;
      }
  return kept;
}

// Whether a CNI configuration concerns this project: Multus's, or a network of type vdpa.
bool concernsUs(const std::string& text) {
  return text.find("\"multus") != std::string::npos || text.find("\"vdpa\"") != std::string::npos;
}

nlohmann::json attributesOf(const Node& node, const std::string& directory,
                            std::initializer_list<const char*> files,
                            std::initializer_list<const char*> links) {
  nlohmann::json values = nlohmann::json::object();
  for (const char* file : files)
    if (const auto text = node.read(directory + "/" + file)) values[file] = *text;
  for (const char* link : links)
    if (const auto name = node.linkName(directory + "/" + link); !name.empty()) values[link] = name;
  return values;
}

}  // namespace

void Collection::add(const std::string& path, const std::string& content) {
  std::string name = path;
  if (name.size() > kMaxPath) name = name.substr(0, 30) + "..." + name.substr(name.size() - 45);
  for (unsigned copy = 2; files.contains(name); ++copy)
    name = fmt::format("{}.{}", path.substr(0, kMaxPath - 5), copy);
  std::string text = withoutSecrets(content);
  if (text.size() > room) return note("left out, as the bundle is too large: " + name);
  room -= text.size();
  files[name] = std::move(text);
}

void collectRecords(const Node& node, const DoctorPaths& paths, Collection& collection) {
  addTree(node, paths.stateDirectory, "records", collection);
  if (const auto run = node.hostPath(paths.runDirectory)) collection.add("run.txt", listing(*run));
  if (const auto path = node.hostPath(paths.runDirectory + "/devices"))
    for (const auto& device : namesIn(*path))  // what the pods read
      for (const char* file : {"device.json", "eal-args"})
        if (const auto text = endOf(*path + "/" + device + "/" + file))
          collection.add(fmt::format("devices/{}/{}", device, file), *text);
}

void collectConfigurations(const Node& node, const DoctorPaths& paths, Collection& collection) {
  bool found = false;
  for (const auto& process : node.processes()) {
    if (process.name != "vdpa-device-plugin") continue;
    // The file is in the plugin's container. --config may name another.
    std::string file = "/etc/vdpa/config.yaml";
    std::string line = node.read("/proc/" + process.pid + "/cmdline").value_or("");
    std::istringstream words(line);
    for (std::string word, before; std::getline(words, word, '\0'); before = word) {
      if (before == "--config") file = word;
      if (word.starts_with("--config=")) file = word.substr(9);
    }
    const std::string root = node.kernelPath(fmt::format("/proc/{}/root", process.pid));
    if (const auto text = readBelow(root, file, kMaxConfiguration)) {  // a ConfigMap's is a link
      collection.add("configuration/config.yaml", *text);
      found = true;
    }
  }
  if (!found)
    collection.note(
        "vdpa-device-plugin's configuration cannot be seen from here; `kubectl -n "
        "vdpa-system get configmap vdpa-config -o yaml` shows it");
  const auto directory = node.hostPath(paths.cniConfigurations);
  if (!directory) return collection.note(paths.cniConfigurations + " cannot be seen from here");
  collection.add("configuration/cni.txt", listing(*directory));
  for (const auto& name : namesIn(*directory))
    if (const auto text = endOf(*directory + "/" + name);
        text && (name.ends_with(".conf") || name.ends_with(".conflist")) && concernsUs(*text))
      collection.add("configuration/cni/" + name, *text);
}

void collectProcesses(const Node& node, Collection& collection) {
  for (const auto& [pid, name] : node.processes()) {
    std::string text;
    std::string line = node.read("/proc/" + pid + "/cmdline").value_or("");
    std::replace(line.begin(), line.end(), '\0', ' ');
    text += "cmdline: " + line + "\n";
    for (const char* file : {"status", "limits", "cgroup", "stat"})
      text += fmt::format("--- {}\n{}\n", file,
                          node.read(fmt::format("/proc/{}/{}", pid, file)).value_or("unreadable"));
    text += fmt::format("--- open files\n{}\n", node.list("/proc/" + pid + "/fd").size());
    collection.add(fmt::format("processes/{}-{}.txt", name, pid), text);
  }
}

void collectKernel(const Node& node, Collection& collection) {
  for (const char* file : {"version", "modules", "meminfo", "uptime", "loadavg", "buddyinfo",
                           "interrupts", "net/dev", "pressure/memory", "pressure/cpu"})
    if (const auto text = node.read(std::string("/proc/") + file))
      collection.add(std::string("kernel/") + file, *text + "\n");
  if (const auto line = node.read("/proc/cmdline"))
    collection.add("kernel/boot-options", bootOptions(*line));
  if (const auto text = node.read("/proc/sys/vm/max_map_count"))
    collection.add("kernel/max_map_count", *text + "\n");
  collection.add("sysfs.json", anyJsonText(sysfsSnapshot(node), 1));
  for (const char* root : {"/host/cgroup/vdpa", "/sys/fs/cgroup/vdpa"}) {
    std::string text;
    for (const auto& name : node.list(root))
      for (const char* prefix : {"cgroup.", "memory.", "cpu."})
        if (name.starts_with(prefix))
          if (const auto value = node.read(fmt::format("{}/{}", root, name)))
            text += fmt::format("--- {}\n{}\n", name, *value);
    if (!text.empty()) collection.add("cgroup.txt", text);
  }
}

void collectLogs(const Node& node, const std::string& podNamespace, Collection& collection) {
  const auto pods = node.hostOnlyPath("/var/log/pods");
  if (!pods)
    collection.note(
        fmt::format("the daemons' logs cannot be seen from here; `kubectl -n {} logs "
                    "POD --all-containers --prefix` shows them",
                    podNamespace));
  else
    for (const auto& pod : namesIn(*pods)) {  // NAMESPACE_POD_UID
      const auto isOurs = [&](const char* prefix) {
        return pod.starts_with(podNamespace + "_" + prefix);
      };
      if (!std::any_of(std::begin(kPods), std::end(kPods), isOurs)) continue;
      for (const auto& container : namesIn(*pods + "/" + pod))
        for (const auto& log : namesIn(*pods + "/" + pod + "/" + container)) {
          if (!log.ends_with(".log")) continue;  // an older one, perhaps compressed
          if (const auto text = endOf(*pods + "/" + pod + "/" + container + "/" + log))
            collection.add(fmt::format("logs/{}/{}/{}", pod.substr(podNamespace.size() + 1, 40),
                                       container, log),
                           *text);
        }
    }
  const auto logs = node.hostOnlyPath("/var/log");
  if (!logs) return;
  for (const auto& name : namesIn(*logs))
    if (name.ends_with(".log") && (name.starts_with("vdpa") || name.starts_with("multus")))
      if (const auto text = endOf(*logs + "/" + name)) collection.add("logs/" + name, *text);
}

nlohmann::json sysfsSnapshot(const Node& node) {
  nlohmann::json snapshot = {{"pci", nlohmann::json::object()},
                             {"vdpa", nlohmann::json::object()},
                             {"netdevs", nlohmann::json::object()},
                             {"hugepages", nlohmann::json::object()}};
  const std::string pci = "/sys/bus/pci/devices/", vdpa = "/sys/bus/vdpa/devices/",
                    net = "/sys/class/net/", huge = "/sys/kernel/mm/hugepages/";
  for (const auto& function : node.list(pci)) {
    const auto values = attributesOf(
        node, pci + function,
        {"class", "vendor", "device", "subsystem_vendor", "subsystem_device", "numa_node",
         "sriov_numvfs", "sriov_totalvfs", "sriov_drivers_autoprobe", "driver_override"},
        {"driver", "iommu_group", "physfn"});
    // Network functions, and whatever a vDPA driver could have.
    const std::string type = values.value("class", "");
    if (type.starts_with("0x02") || type.starts_with("0x12") || type.starts_with("0x08"))
      snapshot["pci"][function] = values;
  }
  for (const auto& device : node.list(vdpa))
    snapshot["vdpa"][device] = attributesOf(node, vdpa + device, {"driver_override"}, {"driver"});
  for (const auto& netdev : node.list(net))
    snapshot["netdevs"][netdev] = attributesOf(node, net + netdev,
                                               {"ifindex", "mtu", "operstate", "carrier", "speed",
                                                "phys_port_name", "phys_switch_id", "address"},
                                               {"device", "master"});
  for (const auto& size : node.list(huge))
    snapshot["hugepages"][size] =
        attributesOf(node, huge + size, {"nr_hugepages", "free_hugepages", "resv_hugepages"}, {});
  return snapshot;
}

std::string listing(const std::string& directory) {
  std::string text;
  std::error_code error;
  size_t files = 0;
  for (fs::recursive_directory_iterator entry(directory, error), end;
       !error && entry != end && files < kMaxFiles; entry.increment(error), ++files) {
    struct stat status {};
    if (::lstat(entry->path().c_str(), &status) < 0) continue;
    text += fmt::format("{:06o} {}:{} {:>9} {}\n", status.st_mode, status.st_uid, status.st_gid,
                        status.st_size, entry->path().lexically_relative(directory).string());
  }
  return text;
}

}  // namespace vdpa::ctl
