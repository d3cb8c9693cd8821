// The amount of this node's memory, the basis of limits.
#pragma once

#include <unistd.h>

#include <cstdint>

namespace vdpa {

// Physical memory, in bytes.
inline uint64_t nodeMemory() {
  return static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
         static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace vdpa
