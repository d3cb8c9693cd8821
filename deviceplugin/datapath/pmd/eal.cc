// See the header.
#include "deviceplugin/datapath/pmd/eal.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <vector>

#include "deviceplugin/datapath/pmd/driver.h"

namespace vdpa {
namespace {

constexpr unsigned kMegabytes = 16;

// The driver of the DPDK that this process runs with: both carry the same ABI version.
std::string driverLibrary(const Driver& driver) {
  Dl_info eal{};
  if (::dladdr(reinterpret_cast<void*>(&rte_eal_init), &eal) == 0 || !eal.dli_fname)
    return driver.library;
  const std::string file = eal.dli_fname;
  const auto version = file.rfind(".so");
  return driver.library + (version == std::string::npos ? "" : file.substr(version + 3));
}

// EAL's main thread stays on the CPUs that this process may use.
std::string allowedCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  ::sched_getaffinity(0, sizeof set, &set);
  std::string list;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) list += fmt::format("{}{}", list.empty() ? "" : ",", cpu);
  return list;
}

std::string join(const std::string& device, const std::string& selector,
                 const std::string& devargs) {
  return device + "," + selector + (devargs.empty() ? "" : "," + devargs);
}

std::vector<std::string> argumentsOf(const PmdOptions& options) {
  std::vector<std::string> words{"vdpa-pmd",     "--no-huge",
                                 "--no-shconf",  "--no-telemetry",
                                 "--no-hpet",    "--iova-mode=va",
                                 "--lcores",     fmt::format("0@({})", allowedCpus()),
                                 DpdkLog::eal(), "--log-level=lib.vhost.data:critical"};
  unsigned megabytes = kMegabytes;
  if (!options.vdev.empty()) {
    words.insert(words.end(), {"--no-pci", "--vdev=" + options.vdev, "-d", options.plugin});
  } else {
    const Driver& driver = findDriver(options.driver);
    megabytes = driver.megabytes;
    words.insert(words.end(), {"-a", join(options.pci, driver.selector, options.devargs), "-d",
                               driverLibrary(driver)});
  }
  if (options.megabytes) megabytes = options.megabytes;
  words.insert(words.end(), {"-m", std::to_string(megabytes)});
  return words;
}

// EAL makes an empty directory for itself, --no-shconf or not: in a place of ours, for as long as
// it insists.
class RuntimeDirectory {
 public:
  explicit RuntimeDirectory(const std::string& socket)
      : path_(std::filesystem::path(socket).parent_path()) {
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

Eal::Eal(const PmdOptions& options, DpdkLog& log) {
  auto words = argumentsOf(options);
  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(word.data());
  log.clearErrors();
  const RuntimeDirectory directory(options.socket);
  if (rte_eal_init(static_cast<int>(arguments.size()), arguments.data()) < 0) {
    const std::string errors = log.errors();
    throw std::runtime_error(fmt::format("cannot start DPDK for {}: {}", options.device,
                                         errors.empty() ? rte_strerror(rte_errno) : errors));
  }
}

Eal::~Eal() {
  rte_eal_cleanup();
}

}  // namespace vdpa
