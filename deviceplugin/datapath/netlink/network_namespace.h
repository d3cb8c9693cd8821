// Whether an owner's network namespace still exists.
#pragma once

#include <string>

#include "deviceplugin/datapath/model/namespace_id.h"

namespace vdpa::datapath {

// The namespace that `path` names now; zeros if there is none.
NamespaceId namespaceAt(const std::string& path);

// True if the namespace `id` at `path` no longer exists. False if it could not be seen when it was
// recorded, or can't be seen now.
bool namespaceGone(const std::string& path, const NamespaceId& id);

}  // namespace vdpa::datapath
