// How a vdpa-pmd introduces itself on its control channel, whether or not it can serve its device.
#pragma once

#include "control.pb.h"
#include "deviceplugin/datapath/pmd/options.h"

namespace vdpa::pmd {

// Without the status, queues and features.
control::HelloAnswer helloOf(const PmdOptions& options);

}  // namespace vdpa::pmd
