// What doctor and bundle have in common: where the node's files are, and what its daemons say.
#pragma once

#include <string>
#include <vector>

#include "common/json.h"
#include "datapath.pb.h"
#include "deviceplugin/ctl/client.h"
#include "deviceplugin/ctl/doctor/checks.h"
#include "deviceplugin/ctl/doctor/finding.h"
#include "deviceplugin/ctl/doctor/node.h"
#include "plugin.pb.h"

namespace vdpa::ctl {

struct DiagnosisOptions {
  std::string root;  // where the node's files are; empty: found out
  DoctorPaths paths;
  std::string podNamespace = "vdpa-system";  // whose pods' logs a bundle has
};

struct Diagnosis {
  Node node;
  Answers answers;
  datapath::v1::ListResponse datapathList;  // empty if it did not answer
  plugin::v1::ListResponse pluginList;
  std::vector<Finding> findings;
};

// Throws std::runtime_error if this user may not see enough of the node.
Diagnosis diagnose(const Options& options, const DiagnosisOptions& diagnosis);

// The sockets as they are below a node's root.
Options below(const std::string& root, Options options);

nlohmann::json toJson(const Diagnosis& diagnosis);
std::string toText(const Diagnosis& diagnosis);
bool failed(const Diagnosis& diagnosis);

}  // namespace vdpa::ctl
