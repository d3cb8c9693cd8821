#include "deviceplugin/datapath/switch/eal.h"

#include <fmt/core.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "deviceplugin/datapath/dpdk/start_eal.h"

namespace vdpa::vswitch {
namespace {

constexpr unsigned kCache = 256;  // packets that a poller caches
// DPDK's own structures, in MiB; the packets have other memory.
constexpr unsigned kBase = 16;
// rte_vhost's memory for one ring of 1,024 entries, in KiB: 32 for copies, 8 for used entries.
constexpr unsigned kRing = 48;

constexpr size_t kHugePage = 2 << 20;

void unmap(rte_mempool_memhdr* memory, void*) {
  ::munmap(memory->addr, memory->len);
}

// Anonymous memory that the kernel backs with transparent huge pages where it can: a third more
// packets per second than with ordinary pages, and the operator needn't reserve any.
void populate(rte_mempool* pool, unsigned packets) {
  size_t chunk = 0, alignment = 0;
  const ssize_t needed = rte_mempool_op_calc_mem_size_default(pool, packets, 0, &chunk, &alignment);
  const size_t size = (static_cast<size_t>(needed) + kHugePage - 1) / kHugePage * kHugePage;
  void* reserved =
      ::mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (reserved == MAP_FAILED)
    throw std::runtime_error(
        fmt::format("cannot map {} bytes for packets: {}", size, std::strerror(errno)));
  const auto begin = reinterpret_cast<uintptr_t>(reserved);
  const auto aligned = (begin + kHugePage - 1) / kHugePage * kHugePage;
  auto* memory = reinterpret_cast<char*>(aligned);
  if (aligned > begin) ::munmap(reserved, aligned - begin);
  ::munmap(memory + size, begin + kHugePage - aligned);
  ::madvise(memory, size, MADV_HUGEPAGE);
  if (rte_mempool_populate_virt(pool, memory, size, size, unmap, nullptr) <= 0) {
    ::munmap(memory, size);
    throw std::runtime_error(fmt::format("cannot put {} packets into {} bytes", packets, size));
  }
}

rte_mempool* createPool(unsigned packets, uint16_t room) {
  rte_mempool* pool = rte_mempool_create_empty("packets", packets, sizeof(rte_mbuf) + room, kCache,
                                               sizeof(rte_pktmbuf_pool_private), SOCKET_ID_ANY,
                                               RTE_MEMPOOL_F_NO_IOVA_CONTIG);
  if (!pool)
    throw std::runtime_error(fmt::format("cannot create a pool of {} packets of {} bytes: {}",
                                         packets, room, rte_strerror(rte_errno)));
  try {
    rte_pktmbuf_pool_private layout{};
    layout.mbuf_data_room_size = room;
    rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), nullptr);
    rte_pktmbuf_pool_init(pool, &layout);
    populate(pool, packets);
    rte_mempool_obj_iter(pool, rte_pktmbuf_init, nullptr);
    return pool;
  } catch (...) {
    rte_mempool_free(pool);
    throw;
  }
}

}  // namespace

Eal::Eal(const std::string& directory, unsigned packets, unsigned frameBytes, unsigned rings) {
  const unsigned room = (frameBytes + 63) / 64 * 64 + RTE_PKTMBUF_HEADROOM;
  const unsigned megabytes = kBase + (rings * kRing + 1023) / 1024;
  // rte_vhost would log a hundred errors a second while pods come and go.
  if (dpdk::startEal(directory,
                     {"--no-pci", "-m", std::to_string(megabytes), "--log-level=*:warning",
                      "--log-level=lib.vhost.config:critical"}) < 0)
    throw std::runtime_error(fmt::format("cannot start DPDK: {}", rte_strerror(rte_errno)));
  try {
    pool_ = createPool(packets, static_cast<uint16_t>(room));
  } catch (...) {
    rte_eal_cleanup();
    throw;
  }
}

Eal::~Eal() {
  rte_mempool_free(pool_);
  rte_eal_cleanup();
}

}  // namespace vdpa::vswitch
