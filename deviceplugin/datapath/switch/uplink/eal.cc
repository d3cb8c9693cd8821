#include "deviceplugin/datapath/switch/uplink/eal.h"

#include <fmt/core.h>
#include <rte_eal.h>
#include <rte_errno.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "deviceplugin/datapath/dpdk/start_eal.h"

namespace vdpa::vswitch {

Eal::Eal(const std::string& directory, const std::string& uplink, std::vector<std::string> words) {
  words.insert(words.end(), {"--iova-mode=va", "--log-level=*:warning"});
  if (dpdk::startEal(directory, std::move(words)) < 0)
    throw std::runtime_error(
        fmt::format("cannot start DPDK for uplink {}: {}; DPDK's own messages "
                    "are in this log",
                    uplink, rte_strerror(rte_errno)));
}

Eal::~Eal() {
  rte_eal_cleanup();
}

}  // namespace vdpa::vswitch
