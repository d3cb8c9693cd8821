#include "deviceplugin/ctl/doctor/node.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "common/atomic_file.h"
#include "common/unique_fd.h"

namespace vdpa::ctl {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrograms[] = {"vdpa-datapath", "vdpa-device-plugin", "vdpa-exporter",
                                     "vdpa-pmd",      "vdpa-switch",        "vdpa-switch-dpdk",
                                     "vdpa-worker"};
// The kernel keeps this many bytes of a process's name: TASK_COMM_LEN of include/linux/sched.h.
constexpr size_t kCommLength = 15;
// Behind the path of an executable that was replaced since: proc(5).
constexpr std::string_view kDeleted = " (deleted)";

std::string targetOf(const std::string& link) {
  std::error_code error;
  return fs::read_symlink(link, error);
}

}  // namespace

std::vector<std::string> namesIn(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error))
    names.push_back(entry->path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<std::string> readText(const std::string& path) {
  try {
    std::string text = readFile(path);
    text.erase(text.find_last_not_of(" \t\r\n") + 1);
    return text;
  } catch (const std::system_error&) {
    return std::nullopt;
  }
}

std::optional<std::string> readBelow(const std::string& root, const std::string& path,
                                     size_t most) {
  const UniqueFd directory(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return std::nullopt;
  open_how how{};
  how.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const UniqueFd file(
      static_cast<int>(::syscall(SYS_openat2, directory.get(), path.c_str(), &how, sizeof how)));
  struct stat status {};
  if (!file || ::fstat(file.get(), &status) < 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  std::string text(most + 1, '\0');
  const ssize_t count = ::pread(file.get(), text.data(), text.size(), 0);
  if (count < 0 || static_cast<size_t>(count) > most) return std::nullopt;
  text.resize(static_cast<size_t>(count));
  return text;
}

std::optional<std::string> Node::read(const std::string& path) const {
  return readText(root_ + path);
}

bool Node::exists(const std::string& path) const {
  std::error_code error;
  return fs::exists(root_ + path, error);
}

std::vector<std::string> Node::list(const std::string& path) const {
  return namesIn(root_ + path);
}

std::string Node::linkName(const std::string& path) const {
  return fs::path(targetOf(root_ + path)).filename();
}

std::optional<std::string> Node::hostPath(const std::string& path) const {
  return exists(path) ? root_ + path : hostOnlyPath(path);
}

std::optional<std::string> Node::hostOnlyPath(const std::string& path) const {
  if (place_ == Place::node) return root_ + path;
  if (!hostRoot_.empty()) return hostRoot_ + path;
  return std::nullopt;
}

std::map<std::string, std::string> Node::statusOf(const std::string& pid) const {
  std::map<std::string, std::string> values;
  std::istringstream lines(read("/proc/" + pid + "/status").value_or(""));
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(':');
    const size_t value = line.find_first_not_of(" \t", colon == std::string::npos ? 0 : colon + 1);
    if (colon != std::string::npos && value != std::string::npos)
      values[line.substr(0, colon)] = line.substr(value);
  }
  return values;
}

std::vector<Node::Process> Node::processes() const {
  std::vector<Process> found;
  for (const auto& pid : list("/proc")) {
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    std::string name = linkName("/proc/" + pid + "/exe");
    if (name.ends_with(kDeleted)) name.erase(name.size() - kDeleted.size());
    // Who may not see the executable has the process's own word, cut off.
    const bool own = name.empty();
    if (own) name = read("/proc/" + pid + "/comm").value_or("");
    for (const std::string program : kPrograms)
      if (name == (own ? program.substr(0, kCommLength) : program)) found.push_back({pid, program});
  }
  return found;
}

Node thisNode() {
  const std::string own = targetOf("/proc/self/ns/mnt"), first = targetOf("/proc/1/ns/mnt");
  // The kubelet sets this variable in every container.
  const bool pod = std::getenv("KUBERNETES_SERVICE_HOST") != nullptr;
  // Unreadable: root of a confined machine, which is all that there is.
  if (!pod && (first.empty() || own == first)) return {Place::node, ""};
  // With the host's processes, the first one is the node's. Without privileges its files are
  // closed.
  const bool reachable = own != first && ::access("/proc/1/root/etc", R_OK | X_OK) == 0;
  return {Place::container, "", reachable ? "/proc/1/root" : ""};
}

}  // namespace vdpa::ctl
