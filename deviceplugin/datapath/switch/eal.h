// DPDK's environment for this process: no devices, no huge pages, no files, so that it runs in a
// plain container.
#pragma once

#include <rte_mempool.h>

#include <string>

namespace vdpa {

class Eal {
 public:
  // `packets` of up to `frameBytes` each are in the pool. Throws std::runtime_error with EAL's
  // reason.
  Eal(unsigned packets, unsigned frameBytes);
  ~Eal();
  Eal(const Eal&) = delete;
  Eal& operator=(const Eal&) = delete;

  rte_mempool* pool() const { return pool_; }

 private:
  rte_mempool* pool_ = nullptr;
};

}  // namespace vdpa
