// The features offered to a front-end: those of the engine that this worker lets pass.
#pragma once

#include "deviceplugin/datapath/vhost_user/session.h"
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/options.h"

namespace vdpa::worker {

// Behind a switch of an earlier release, only rings with which a pod can't reach other pods'
// memory. A driver that has agreed on others with a later switch keeps them when that is rolled
// back: as with that release's own worker, which offers them.
vhost_user::OfferedFeatures offeredFeatures(const WorkerOptions& options,
                                            const EngineLimits& limits);

}  // namespace vdpa::worker
