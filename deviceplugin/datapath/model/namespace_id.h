// Identifies a network namespace.
#pragma once

#include <cstdint>

namespace vdpa::datapath {

// Device and inode of a namespace; zeros when it could not be seen.
struct NamespaceId {
  uint64_t device = 0;
  uint64_t inode = 0;

  bool operator==(const NamespaceId&) const = default;
};

}  // namespace vdpa::datapath
