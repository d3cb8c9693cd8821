#include "deviceplugin/datapath/pmd/eal.h"

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

std::vector<std::string> argumentsOf(const PmdOptions& options) {
  std::vector<std::string> words{"--iova-mode=va", DpdkLog::eal()};
  unsigned megabytes = kMegabytes;
  if (!options.vdev.empty()) {
    words.insert(words.end(), {"--no-pci", "--vdev=" + options.vdev, "-d", options.plugin});
  } else {
    const DpdkVdpaDriver& driver = findDriver(options.driver);
    megabytes = driver.megabytes;
    words.insert(words.end(), {"-a", options.pci + "," + devargsOf(driver, options.devargs), "-d",
                               dpdk::versionedLibrary(driver.library)});
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
