// IPAM delegation: another plugin, run with our environment and configuration, returns addresses.
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
  // `type` is looked up in `path`; `variables` override our own environment. Has no effect before
  // run().
  Ipam(std::string type, std::vector<std::string> path, std::string config,
       std::map<std::string, std::string> variables = {});

  bool installed() const { return !find().empty(); }

  // Runs the plugin for a CNI command and returns its output, null if that is empty. Throws Error
  // with the plugin's own code and message, or with the reason why it could not be run. Kills the
  // plugin at the deadline.
  nlohmann::json run(const std::string& command,
                     std::chrono::milliseconds deadline = std::chrono::seconds(30)) const;

 private:
  Error failureOf(const std::string& text, int status) const;
  std::string find() const;  // empty if not found

  std::string type_;
  std::vector<std::string> path_;
  std::string config_;
  std::map<std::string, std::string> variables_;
};

}  // namespace vdpa::cni
