// A file for what only its owner may see.
#pragma once

#include <string>

#include "common/unique_fd.h"

namespace vdpa::ctl {

// Opens a file for writing, which keeps its content: a regular one, new or this user's own, with
// mode 0600, or a pipe or a device as it is. A link leads to these only: in a directory of others,
// it could lead to anything. Throws std::runtime_error that names the file.
UniqueFd openOutputFile(const std::string& file);

}  // namespace vdpa::ctl
