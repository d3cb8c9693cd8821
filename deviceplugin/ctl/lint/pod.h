// Checks pods, and the pods of Deployments, DaemonSets, Jobs and whatever else has a template.
#pragma once

#include <vector>

#include "deviceplugin/ctl/lint/manifest.h"
#include "deviceplugin/ctl/lint/network.h"
#include "deviceplugin/ctl/lint/problem.h"

namespace vdpa::ctl {

bool hasPods(const Object& object);

// Appends what is wrong with the object's pods: how many devices their containers request, against
// the networks that use them. `networks` are those of the checked files; the pods may use others.
void checkPods(const Object& object, const std::vector<Network>& networks,
               std::vector<Problem>& problems);

}  // namespace vdpa::ctl
