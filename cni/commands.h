// What each CNI command does. All return what is to be printed and throw Error.
#pragma once

#include <string>

#include "cni/environment.h"

namespace vdpa::cni {

// `config` is standard input's text. The answer is empty where the specification prints nothing.
std::string execute(const Environment& environment, const std::string& config);

// VERSION may be called with an empty standard input.
std::string versionAnswer(const std::string& config);

}  // namespace vdpa::cni
