// What a front-end is offered: what this worker lets pass of what the engine can do.
#pragma once

#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/options.h"
#include "deviceplugin/datapath/worker/protocol/session.h"

namespace vdpa::worker {

// Of a worker behind a switch, only rings with which a pod reaches nobody else's memory.
OfferedFeatures offeredFeatures(const WorkerOptions& options, const EngineLimits& limits);

}  // namespace vdpa::worker
