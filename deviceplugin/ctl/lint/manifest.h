// Reads the Kubernetes objects of a file: any number of YAML documents (JSON is YAML), and the
// objects of lists.
#pragma once

#include <yaml-cpp/yaml.h>

#include <memory>
#include <string>
#include <vector>

#include "deviceplugin/ctl/lint/problem.h"

namespace vdpa::ctl {

// A value inside a document; undefined if it, or a map on its way, is missing.
YAML::Node at(const YAML::Node& node, const std::vector<std::string>& path);
// The scalar there; empty if there is none.
std::string textAt(const YAML::Node& node, const std::vector<std::string>& path);

struct Object {
  std::string file;
  std::shared_ptr<const std::string> text;  // the file's, whole
  YAML::Node node;                          // a map
  std::string kind;                         // empty: not an object of Kubernetes

  Problem problemAt(const YAML::Node& place, const std::string& message) const;
};

// Appends the file's objects. A file that is not YAML is a problem, and has none.
void readObjects(const std::string& file, const std::string& text, std::vector<Object>& objects,
                 std::vector<Problem>& problems);

}  // namespace vdpa::ctl
