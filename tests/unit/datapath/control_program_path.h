#pragma once

#include <string>

namespace vdpa::datapath {

// This build's path. In a source of its own, so that only this one is compiled per build folder.
std::string controlProgram();

}  // namespace vdpa::datapath
