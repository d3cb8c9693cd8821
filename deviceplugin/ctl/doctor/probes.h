// The probes of the running machine.
#pragma once

#include "deviceplugin/ctl/doctor/checks.h"

namespace vdpa::ctl {

Probes machineProbes();

}  // namespace vdpa::ctl
