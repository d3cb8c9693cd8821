// See the header.
#include "deviceplugin/datapath/switch/eal.h"

#include <fmt/format.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <sched.h>

#include <stdexcept>
#include <vector>

namespace vdpa {
namespace {

constexpr unsigned kCache = 256;  // packets a poller keeps for itself

// The CPUs this process may use: EAL's main thread stays on them all, pollers choose theirs.
std::string allowedCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  ::sched_getaffinity(0, sizeof set, &set);
  std::string list;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) list += fmt::format("{}{}", list.empty() ? "" : ",", cpu);
  return list;
}

}  // namespace

Eal::Eal(unsigned packets, unsigned frameBytes) {
  const unsigned room = (frameBytes + 63) / 64 * 64 + RTE_PKTMBUF_HEADROOM;
  const unsigned megabytes = packets * (room + 256) / (1 << 20) + 24;
  std::vector<std::string> words{"vdpa-switch",
                                 "--no-pci",
                                 "--no-huge",
                                 "--no-shconf",
                                 "--no-telemetry",
                                 "--no-hpet",
                                 "-m",
                                 std::to_string(megabytes),
                                 "--lcores",
                                 fmt::format("0@({})", allowedCpus()),
                                 "--log-level=*:warning"};
  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(word.data());
  if (rte_eal_init(static_cast<int>(arguments.size()), arguments.data()) < 0)
    throw std::runtime_error(fmt::format("cannot start DPDK: {}", rte_strerror(rte_errno)));
  pool_ = rte_pktmbuf_pool_create("packets", packets, kCache, 0, static_cast<uint16_t>(room),
                                  SOCKET_ID_ANY);
  if (!pool_) {
    rte_eal_cleanup();
    throw std::runtime_error(fmt::format("cannot create a pool of {} packets of {} bytes: {}",
                                         packets, room, rte_strerror(rte_errno)));
  }
}

Eal::~Eal() {
  rte_mempool_free(pool_);
  rte_eal_cleanup();
}

}  // namespace vdpa
