// Makes metrics of what the daemons show. metrics.md is their list.
#pragma once

#include <prometheus/metric_family.h>

#include <string>
#include <vector>

#include "deviceplugin/exporter/daemons.h"

namespace vdpa::exporter {

// Without families that have no metric.
std::vector<prometheus::MetricFamily> familiesOf(const Node& node);

// In Prometheus's text format.
std::string textOf(const std::vector<prometheus::MetricFamily>& families);

}  // namespace vdpa::exporter
