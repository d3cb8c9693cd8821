#include "deviceplugin/datapath/pmd/eal.h"

#include <dlfcn.h>
#include <fmt/core.h>
#include <rte_eal.h>
#include <rte_errno.h>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/vdpa_drivers.h"
#include "deviceplugin/datapath/dpdk/start_eal.h"
#include "deviceplugin/datapath/pmd/dpdk_log.h"
#include "deviceplugin/datapath/pmd/driver.h"
#include "deviceplugin/datapath/pmd/options.h"

namespace vdpa::pmd {
namespace {

constexpr unsigned kMegabytes = 16;

// The driver of the DPDK that this process runs with: both carry the same ABI version.
std::string driverLibrary(const DpdkVdpaDriver& driver) {
  Dl_info eal{};
  if (::dladdr(reinterpret_cast<void*>(&rte_eal_init), &eal) == 0 || !eal.dli_fname)
    return driver.library;
  const std::string file = eal.dli_fname;
  const auto version = file.rfind(".so");
  return driver.library + (version == std::string::npos ? "" : file.substr(version + 3));
}

std::vector<std::string> argumentsOf(const PmdOptions& options) {
  std::vector<std::string> words{"--iova-mode=va", DpdkLog::eal()};
  unsigned megabytes = kMegabytes;
  if (!options.vdev.empty()) {
    words.insert(words.end(), {"--no-pci", "--vdev=" + options.vdev, "-d", options.plugin});
  } else {
    const DpdkVdpaDriver& driver = findDriver(options.driver);
    megabytes = driver.megabytes;
    words.insert(words.end(), {"-a", options.pci + "," + devargsOf(driver, options.devargs), "-d",
                               driverLibrary(driver)});
  }
  if (options.megabytes) megabytes = options.megabytes;
  words.insert(words.end(), {"-m", std::to_string(megabytes)});
  return words;
}

}  // namespace

Eal::Eal(const PmdOptions& options, DpdkLog& log) {
  log.clearErrors();
  if (dpdk::startEal(std::filesystem::path(options.socket).parent_path(), argumentsOf(options)) <
      0) {
    const std::string errors = log.errors();
    throw std::runtime_error(fmt::format("cannot start DPDK for {}: {}", options.device,
                                         errors.empty() ? rte_strerror(rte_errno) : errors));
  }
}

Eal::~Eal() {
  rte_eal_cleanup();
}

}  // namespace vdpa::pmd
