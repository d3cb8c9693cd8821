// What vdpa-exporter is shown of the datapath.
#pragma once

#include "deviceplugin/datapath/api/metrics.h"
#include "deviceplugin/datapath/attachments/datapath.h"
#include "deviceplugin/datapath/attachments/statistics.h"

namespace vdpa::observe::v1 {
class Datapath;
}

namespace vdpa::datapath {

// Takes about a second at most. From any thread, with problems of its own.
observe::v1::Datapath observationOf(const Datapath& datapath, const Metrics& metrics,
                                    ReadProblems& problems);

}  // namespace vdpa::datapath
