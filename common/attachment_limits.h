// How much an attachment may have of what the writer of a network's configuration chooses: all
// attachments of a node are told in one answer.
#pragma once

#include <cstddef>

namespace vdpa {

constexpr size_t kMaxNetworkName = 253;  // bytes; as a Kubernetes object's
constexpr size_t kMaxAddresses = 64;
constexpr size_t kMaxRoutes = 64;

}  // namespace vdpa
