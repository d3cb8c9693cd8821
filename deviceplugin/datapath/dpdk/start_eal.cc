#include "deviceplugin/datapath/dpdk/start_eal.h"

#include <dlfcn.h>
#include <fmt/core.h>
#include <rte_eal.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace vdpa::dpdk {
namespace {

// EAL's main thread stays on all the CPUs that this process may use.
std::string allowedCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  ::sched_getaffinity(0, sizeof set, &set);
  std::string list;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) list += fmt::format("{}{}", list.empty() ? "" : ",", cpu);
  return list;
}

// EAL creates an empty directory for itself even with --no-shconf: below ours, and only while EAL
// starts.
class RuntimeDirectory {
 public:
  explicit RuntimeDirectory(const std::filesystem::path& path) : path_(path) {
    ::setenv(kVariable, path_.empty() ? "." : path_.c_str(), 1);
  }
  ~RuntimeDirectory() {
    ::unsetenv(kVariable);
    ::rmdir((path_ / "dpdk/rte").c_str());
    ::rmdir((path_ / "dpdk").c_str());
  }
  RuntimeDirectory(const RuntimeDirectory&) = delete;
  RuntimeDirectory& operator=(const RuntimeDirectory&) = delete;

 private:
  static constexpr const char* kVariable = "RUNTIME_DIRECTORY";
  const std::filesystem::path path_;
};

}  // namespace

std::string versionedLibrary(const std::string& library) {
  Dl_info eal{};
  if (::dladdr(reinterpret_cast<void*>(&rte_eal_init), &eal) == 0 || !eal.dli_fname) return library;
  const std::string file = eal.dli_fname;
  const auto version = file.rfind(".so");
  return library + (version == std::string::npos ? "" : file.substr(version + 3));
}

int startEal(const std::string& directory, std::vector<std::string> words) {
  words.insert(words.begin(), {"vdpa", "--no-huge", "--no-shconf", "--no-telemetry", "--no-hpet",
                               "--lcores", fmt::format("0@({})", allowedCpus())});
  // Messages of the vhost library that a pod can cause don't belong in the log.
  words.push_back("--log-level=lib.vhost.data:critical");
  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(word.data());
  const RuntimeDirectory runtime(directory);
  return rte_eal_init(static_cast<int>(arguments.size()), arguments.data());
}

}  // namespace vdpa::dpdk
