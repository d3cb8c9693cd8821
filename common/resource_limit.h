// Raises limits of this process that are lower than they may be.
#pragma once

#include <sys/resource.h>

namespace vdpa {

// What a switch of 4,096 ports needs, and the kernel's own limit (fs.nr_open) where nobody has
// changed that.
inline constexpr rlim_t kDescriptors = 1 << 20;

// Raises the descriptor limit to kDescriptors if this process may, else to the container's maximum.
// The initial limit is often 1,024, and each attachment takes several descriptors.
inline void raiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  const rlimit more{kDescriptors, kDescriptors};
  if (limit.rlim_max < kDescriptors && ::setrlimit(RLIMIT_NOFILE, &more) == 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// Raises the limit of memory to pin for devices: to unlimited if this process may, else to the
// maximum.
inline void raiseMemoryLimit() {
  const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
  rlimit limit{};
  if (::setrlimit(RLIMIT_MEMLOCK, &unlimited) == 0 || ::getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
    return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_MEMLOCK, &limit);
}

}  // namespace vdpa
