// Limits on the values that the author of a network's configuration chooses: one answer lists all
// attachments of a node.
#pragma once

#include <cstddef>

namespace vdpa {

constexpr size_t kMaxNetworkName = 253;  // bytes; as a Kubernetes object's
constexpr size_t kMaxAddresses = 64;
constexpr size_t kMaxRoutes = 64;

}  // namespace vdpa
