#pragma once

#include <string>

namespace vdpa::datapath {

// Of this build. In a source of its own, so that no other is compiled for each folder of a build.
std::string controlProgram();

}  // namespace vdpa::datapath
