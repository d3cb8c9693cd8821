// Collects what a report of a bug needs from a node's files: records, configurations, snapshots of
// sysfs and of processes, logs. No packets, no memory, no environment variables, no secrets.
#pragma once

#include <cstddef>
#include <map>
#include <string>

#include "common/json.h"
#include "deviceplugin/ctl/doctor/checks.h"
#include "deviceplugin/ctl/doctor/node.h"

namespace vdpa::ctl {

// The collected files by their path in the bundle, at most 80 bytes; what could not be read has its
// reason in `notes`.
struct Collection {
  std::map<std::string, std::string> files;
  std::string notes;

  // With its secrets removed. A second file of one path gets a number.
  void add(const std::string& path, const std::string& content);
  void note(const std::string& text) { notes += text + "\n"; }
};

void collectRecords(const Node& node, const DoctorPaths& paths, Collection& collection);
void collectConfigurations(const Node& node, const DoctorPaths& paths, Collection& collection);
void collectProcesses(const Node& node, Collection& collection);
void collectKernel(const Node& node, Collection& collection);  // /proc and /sys
void collectLogs(const Node& node, Collection& collection);

// The network functions, vDPA devices and netdevs of sysfs.
nlohmann::json sysfsSnapshot(const Node& node);
// Names, kinds and sizes of all files in a directory tree, without their content.
std::string listing(const std::string& directory);

}  // namespace vdpa::ctl
