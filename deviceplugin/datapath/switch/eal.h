// DPDK's environment for this process, without devices, and the packet pool of all its ports.
#pragma once

#include <rte_mempool.h>

#include <string>

namespace vdpa::vswitch {

class Eal {
 public:
  // `directory` is as for startEal(). The pool has `packets` of up to `frameBytes` each; up to
  // `rings` of pods' devices can be served. Throws std::runtime_error with EAL's reason.
  Eal(const std::string& directory, unsigned packets, unsigned frameBytes, unsigned rings);
  ~Eal();
  Eal(const Eal&) = delete;
  Eal& operator=(const Eal&) = delete;

  rte_mempool* pool() const { return pool_; }

 private:
  rte_mempool* pool_ = nullptr;
};

}  // namespace vdpa::vswitch
