// Limits of this process that are lower than what it may have.
#pragma once

#include <sys/resource.h>

namespace vdpa {

// The descriptors that it may have: as many as its container may. A container's first limit is
// often 1,024, and each attachment takes several.
inline void raiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// The memory that it may pin for a device: any, where it has the right to raise the limit.
inline void raiseMemoryLimit() {
  const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
  rlimit limit{};
  if (::setrlimit(RLIMIT_MEMLOCK, &unlimited) == 0 || ::getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
    return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_MEMLOCK, &limit);
}

}  // namespace vdpa
