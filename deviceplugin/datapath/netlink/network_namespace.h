// Whether the network namespace an owner lived in is still there.
#pragma once

#include <string>

#include "deviceplugin/datapath/model/namespace_id.h"

namespace vdpa::datapath {

// What `path` names now; zeros when there is no namespace.
NamespaceId namespaceAt(const std::string& path);

// True when the namespace that was `id` at `path` is no longer there. One that could not be seen
// when it was recorded, or can't be seen now, is never said to be gone.
bool namespaceGone(const std::string& path, const NamespaceId& id);

}  // namespace vdpa::datapath
