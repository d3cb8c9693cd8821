// A process that can't serve its device would exit with the reason on standard error, where
// vdpa-datapath doesn't read. So it stays alive briefly to report the reason.
#pragma once

#include <string>

#include "deviceplugin/datapath/pmd/options.h"

namespace vdpa::pmd {

// Answers "hello" on the control socket with `ready` false and the reason, until "stop", a signal,
// or three seconds have passed. Never throws.
void tellFailure(const PmdOptions& options, const std::string& reason);

}  // namespace vdpa::pmd
