// IPAM delegation: another plugin, run with our environment and configuration, answers with
// addresses.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "cni/error.h"
#include "common/json.h"

namespace vdpa::cni {

class Ipam {
 public:
  // `type` is looked for in `path`; `variables` are set in place of our own. Nothing happens until
  // run().
  Ipam(std::string type, std::vector<std::string> path, std::string config,
       std::map<std::string, std::string> variables = {});

  bool installed() const { return !find().empty(); }

  // Runs the plugin for a CNI command and returns what it printed, null if that is nothing. Throws
  // Error with the plugin's own code and words, or with what went wrong in running it. A plugin
  // over its deadline is killed.
  nlohmann::json run(const std::string& command,
                     std::chrono::milliseconds deadline = std::chrono::seconds(30)) const;

 private:
  Error failureOf(const std::string& text, int status) const;
  std::string find() const;  // empty if it is not there

  std::string type_;
  std::vector<std::string> path_;
  std::string config_;
  std::map<std::string, std::string> variables_;
};

}  // namespace vdpa::cni
