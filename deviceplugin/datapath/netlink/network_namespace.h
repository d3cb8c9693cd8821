// Whether the network namespace an owner lived in is still there.
#pragma once

#include <cstdint>
#include <string>

namespace vdpa {

// Device and inode of a namespace; zeros when it could not be seen.
struct NamespaceId {
  uint64_t device = 0;
  uint64_t inode = 0;

  bool operator==(const NamespaceId&) const = default;
};

// What `path` names now; zeros when there is no namespace.
NamespaceId namespaceAt(const std::string& path);

// True when the namespace that was `id` at `path` is no longer there. One that could not be seen
// when it was recorded, or can't be seen now, is never said to be gone.
bool namespaceGone(const std::string& path, const NamespaceId& id);

}  // namespace vdpa
