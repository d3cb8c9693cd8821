// The features offered to a front-end: those of the engine that this worker lets pass.
#pragma once

#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/options.h"
#include "deviceplugin/datapath/worker/protocol/session.h"

namespace vdpa::worker {

// Behind a switch, only rings with which a pod can't reach other pods' memory.
OfferedFeatures offeredFeatures(const WorkerOptions& options, const EngineLimits& limits);

}  // namespace vdpa::worker
