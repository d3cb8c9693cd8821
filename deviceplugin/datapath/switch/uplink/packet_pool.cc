#include "deviceplugin/datapath/switch/uplink/packet_pool.h"

#include <fmt/core.h>
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_vfio.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>

#include "common/errors.h"

namespace vdpa::vswitch {
namespace {

constexpr unsigned kCache = 256;  // packets that a poller caches
constexpr size_t kHugePage = 2 << 20;

size_t roundUp(size_t size, size_t unit) {
  return (size + unit - 1) / unit * unit;
}

}  // namespace

PacketPool::Memory::Memory(size_t size) : reservedSize_(size + kHugePage), size_(size) {
  reserved_ = ::mmap(nullptr, reservedSize_, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved_ == MAP_FAILED) throw systemError(errno, "cannot map {} bytes for packets", size);
  data_ = reinterpret_cast<void*>(roundUp(reinterpret_cast<uintptr_t>(reserved_), kHugePage));
  ::madvise(data_, size_, MADV_HUGEPAGE);
}

PacketPool::Memory::~Memory() {
  ::munmap(reserved_, reservedSize_);
}

PacketPool::PacketPool(unsigned packets, unsigned room, bool dma) {
  // The flag lets packets lie across pages: the device's addresses are ours, contiguous anyway.
  pool_ = rte_mempool_create_empty(
      "packets", packets, sizeof(rte_mbuf) + RTE_PKTMBUF_HEADROOM + room, kCache,
      sizeof(rte_pktmbuf_pool_private), SOCKET_ID_ANY, RTE_MEMPOOL_F_NO_IOVA_CONTIG);
  if (!pool_)
    throw std::runtime_error(fmt::format("cannot create a pool of {} packets of {} bytes: {}",
                                         packets, room, rte_strerror(rte_errno)));
  try {
    rte_pktmbuf_pool_private layout{};
    layout.mbuf_data_room_size = static_cast<uint16_t>(RTE_PKTMBUF_HEADROOM + room);
    rte_mempool_set_ops_byname(pool_, rte_mbuf_best_mempool_ops(), nullptr);
    rte_pktmbuf_pool_init(pool_, &layout);
    size_t chunk = 0, alignment = 0;
    const ssize_t needed =
        rte_mempool_op_calc_mem_size_default(pool_, packets, 0, &chunk, &alignment);
    memory_ = std::make_unique<Memory>(roundUp(static_cast<size_t>(needed), kHugePage));
    if (dma) openToDevices();
    const int placed = rte_mempool_populate_iova(pool_, static_cast<char*>(memory_->data()),
                                                 reinterpret_cast<uintptr_t>(memory_->data()),
                                                 memory_->size(), nullptr, nullptr);
    if (placed < static_cast<int>(packets))
      throw std::runtime_error(
          fmt::format("cannot put {} packets into {} bytes", packets, memory_->size()));
    rte_mempool_obj_iter(pool_, rte_pktmbuf_init, nullptr);
  } catch (...) {
    rte_mempool_free(pool_);
    throw;
  }
}

void PacketPool::openToDevices() {
  const auto address = reinterpret_cast<uintptr_t>(memory_->data());
  if (rte_vfio_container_dma_map(RTE_VFIO_DEFAULT_CONTAINER_FD, address, address,
                                 memory_->size()) != 0)
    throw std::runtime_error(fmt::format(
        "cannot open {} bytes of packets to the uplink's DMA: {}; the process needs CAP_IPC_LOCK, "
        "or a higher limit of locked memory (ulimit -l)",
        memory_->size(), rte_strerror(rte_errno)));
  open_ = true;
}

PacketPool::~PacketPool() {
  rte_mempool_free(pool_);
  const auto address = reinterpret_cast<uintptr_t>(memory_->data());
  if (open_)
    rte_vfio_container_dma_unmap(RTE_VFIO_DEFAULT_CONTAINER_FD, address, address, memory_->size());
}

}  // namespace vdpa::vswitch
