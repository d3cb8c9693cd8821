// Runs the CNI commands. All functions return the text to print and throw Error.
#pragma once

#include <string>

#include "cni/environment.h"

namespace vdpa::cni {

// `config` is the text from standard input. The result is empty where the specification prints
// nothing.
std::string execute(const Environment& environment, const std::string& config);

// VERSION may be called with an empty standard input.
std::string versionAnswer(const std::string& config);

}  // namespace vdpa::cni
