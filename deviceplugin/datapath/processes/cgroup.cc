#include "deviceplugin/datapath/processes/cgroup.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <exception>
#include <filesystem>
#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "common/atomic_file.h"
#include "common/errors.h"
#include "common/unique_fd.h"

namespace vdpa::datapath {
namespace {

namespace fs = std::filesystem;

constexpr const char* kName = "vdpa";

std::vector<fs::path> hierarchiesOf(const fs::path& root) {
  if (fs::exists(root / "cgroup.procs")) return {root};
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(root))
    // Links are v1's second names of joint controllers.
    if (!entry.is_symlink() && fs::exists(entry.path() / "cgroup.procs"))
      found.push_back(entry.path());
  if (found.empty()) throw systemError(ENOENT, "no cgroup hierarchy below {}", root.string());
  return found;
}

void writeTo(const fs::path& file, const std::string& text) {
  const UniqueFd fd(
      checked(::open(file.c_str(), O_WRONLY | O_CLOEXEC), "cannot open {}", file.string()));
  checked(static_cast<int>(::write(fd.get(), text.data(), text.size())), "cannot write '{}' to {}",
          text, file.string());
}

// v1: a cpuset takes no process until it has processors and memory nodes.
void fillCpuset(const fs::path& hierarchy, const fs::path& folder) {
  for (const char* name : {"cpuset.cpus", "cpuset.mems"}) {
    if (!fs::exists(hierarchy / name)) continue;
    if (readFile((folder / name).string()).find_first_not_of(" \n") == std::string::npos)
      writeTo(folder / name, readFile((hierarchy / name).string()));
  }
}

// v2: a cgroup has a controller's files once the cgroup above enables it. Its children keep what
// they have.
void enableBelow(const fs::path& hierarchy, const std::string& controller) {
  if (!fs::exists(hierarchy / "cgroup.controllers")) return;
  std::istringstream there(readFile((hierarchy / "cgroup.controllers").string()));
  for (std::string name; there >> name;)
    if (name == controller) writeTo(hierarchy / "cgroup.subtree_control", "+" + controller);
}

// The number behind `name` in a file of lines such as "oom_kill 1".
std::optional<uint64_t> valueIn(const fs::path& file, const std::string& name) {
  std::istringstream words(readFile(file.string()));
  for (std::string word; words >> word;)
    if (uint64_t value; word == name && words >> value) return value;
  return std::nullopt;
}

uint64_t bytesIn(const fs::path& file) {
  const std::string text = readFile(file.string());
  return text.starts_with("max") ? std::numeric_limits<uint64_t>::max() : std::stoull(text);
}

// The own cgroup of the memory controller.
struct MemoryGroup {
  fs::path used, limit;  // files
  uint64_t kills;
};

std::optional<MemoryGroup> memoryGroupOf(const std::string& root) {
  struct Files {
    const char* kills;
    const char* used;
    const char* limit;
  };
  constexpr Files kFiles[] = {
      {"memory.events", "memory.current", "memory.max"},
      {"memory.oom_control", "memory.usage_in_bytes", "memory.limit_in_bytes"}};
  if (root.empty()) return std::nullopt;
  for (const auto& hierarchy : hierarchiesOf(root))
    for (const auto& files : kFiles) {
      const fs::path folder = hierarchy / kName;
      if (!fs::exists(folder / files.kills)) continue;
      if (const auto kills = valueIn(folder / files.kills, "oom_kill"))
        return MemoryGroup{folder / files.used, folder / files.limit, *kills};
    }
  return std::nullopt;
}

fs::path makeFolder(const fs::path& hierarchy) {
  fs::path folder = hierarchy / kName;
  if (::mkdir(folder.c_str(), 0755) < 0 && errno != EEXIST)
    throw systemError(errno, "cannot make the cgroup {}", folder.string());
  return folder;
}

}  // namespace

void limitOwnCgroup(const std::string& root, uint64_t memory) {
  // v2's file and its word for no limit, and v1's.
  constexpr std::pair<const char*, const char*> kFiles[] = {{"memory.max", "max"},
                                                            {"memory.limit_in_bytes", "-1"}};
  for (const auto& hierarchy : hierarchiesOf(root)) {
    const fs::path folder = makeFolder(hierarchy);
    for (const auto& [name, none] : kFiles)
      if (fs::exists(folder / name))
        writeTo(folder / name, memory > 0 ? std::to_string(memory) : none);
  }
}

uint64_t ownMemoryKills(const std::string& root) noexcept {
  try {
    const auto group = memoryGroupOf(root);
    return group ? group->kills : 0;
  } catch (const std::exception&) {
    return 0;  // only a message uses it
  }
}

std::optional<OwnMemory> ownMemory(const std::string& root) noexcept {
  try {
    if (const auto group = memoryGroupOf(root))
      return OwnMemory{bytesIn(group->used), bytesIn(group->limit), group->kills};
  } catch (const std::exception&) {
    // Only a message uses it.
  }
  return std::nullopt;
}

std::vector<std::system_error> reserveNoHugePages(const std::string& root) {
  std::vector<std::system_error> failures;
  const auto attempt = [&](const auto& step) {
    try {
      step();
    } catch (const std::system_error& error) {
      failures.push_back(error);
    }
  };
  bool found = false;
  for (const auto& hierarchy : hierarchiesOf(root)) {
    attempt([&] { enableBelow(hierarchy, "hugetlb"); });
    attempt([&] {
      const fs::path folder = makeFolder(hierarchy);
      std::error_code error;
      const fs::directory_iterator entries(folder, error);
      if (error) throw systemError(error.value(), "cannot read {}", folder.string());
      for (const auto& entry : entries) {
        // One for each page size: hugetlb.2MB.rsvd.max with v2, hugetlb.2MB.rsvd.limit_in_bytes
        // with v1 (Linux's Documentation/admin-guide/cgroup-v1/hugetlb.rst and cgroup-v2.rst).
        const std::string name = entry.path().filename();
        if (!name.starts_with("hugetlb.") ||
            (!name.ends_with(".rsvd.max") && !name.ends_with(".rsvd.limit_in_bytes")))
          continue;
        found = true;
        attempt([&] { writeTo(entry.path(), "0"); });
      }
    });
  }
  if (!found && failures.empty())
    throw systemError(
        ENOENT,
        "no hierarchy below {} limits reservations of huge pages (hugetlb controller, "
        "Linux 5.7)",
        root);
  return failures;
}

std::vector<std::string> removeOwnCgroup(const std::string& root) {
  std::vector<std::string> left;
  for (const auto& hierarchy : hierarchiesOf(root)) {
    const fs::path folder = hierarchy / kName;
    if (::rmdir(folder.c_str()) < 0 && errno != ENOENT)
      left.push_back(fmt::format("the cgroup {}: {}; an empty one does no harm", folder.string(),
                                 std::strerror(errno)));
  }
  return left;
}

void moveToOwnCgroup(const std::string& root, pid_t pid) {
  for (const auto& hierarchy : hierarchiesOf(root)) {
    const fs::path folder = makeFolder(hierarchy);
    fillCpuset(hierarchy, folder);
    writeTo(folder / "cgroup.procs", std::to_string(pid));
  }
}

}  // namespace vdpa::datapath
