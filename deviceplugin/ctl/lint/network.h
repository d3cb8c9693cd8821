// Checks networks: NetworkAttachmentDefinitions, and files with a configuration alone.
#pragma once

#include <string>
#include <vector>

#include "deviceplugin/ctl/lint/manifest.h"
#include "deviceplugin/ctl/lint/problem.h"

namespace vdpa::ctl {

struct Network {
  std::string space;  // namespace; empty: not stated
  std::string name;
  std::string resource;  // whose devices Multus takes; empty: none
  std::string config;    // JSON, as Multus passes it to vdpa; empty: not of this plugin, or wrong
};

bool isNetwork(const Object& object);

// Appends what is wrong with it. Without a problem, vdpa's ADD accepts the configuration.
Network checkNetwork(const Object& object, std::vector<Problem>& problems);

// Runs the CNI plugin's own parser on the configuration, with this JSON object as the attachment's
// runtimeConfig. Throws cni::Error.
void parseAsMultusDoes(const std::string& config, const std::string& runtimeConfig);

}  // namespace vdpa::ctl
