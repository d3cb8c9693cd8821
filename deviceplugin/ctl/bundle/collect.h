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
  size_t room = 64 << 20;  // bytes of further files

  // With its secrets removed. A second file of one path gets a number. One for which there is no
  // room is left out, with a note.
  void add(const std::string& path, const std::string& content);
  void note(const std::string& text) { notes += text + "\n"; }
};

void collectRecords(const Node& node, const DoctorPaths& paths, Collection& collection);
void collectConfigurations(const Node& node, const DoctorPaths& paths, Collection& collection);
void collectProcesses(const Node& node, Collection& collection);
void collectKernel(const Node& node, Collection& collection);  // /proc and /sys
// Of the pods in this namespace.
void collectLogs(const Node& node, const std::string& podNamespace, Collection& collection);

// The network functions, vDPA devices and netdevs of sysfs.
nlohmann::json sysfsSnapshot(const Node& node);
// Names, kinds and sizes of all files in a directory tree, without their content.
std::string listing(const std::string& directory);

}  // namespace vdpa::ctl
