// A CNI error, which the runtime prints in the pod's events. Codes below 100 are the
// specification's.
#pragma once

#include <stdexcept>
#include <string>

namespace vdpa::cni {

enum class Code : int {
  incompatibleVersion = 1,
  unsupportedField = 2,
  unknownContainer = 3,
  invalidEnvironment = 4,
  ioFailure = 5,
  decodingFailure = 6,
  invalidConfig = 7,
  tryAgainLater = 11,
  notAvailable = 50,
  alreadyAttached = 100,  // ADD for a container and interface that has an attachment
  checkFailed = 101,      // CHECK found differences
  ipamFailed = 102,       // the IPAM plugin failed without a code of its own
};

class Error : public std::runtime_error {
 public:
  Error(Code code, const std::string& message, std::string details = "")
      : std::runtime_error(message), code_(static_cast<int>(code)), details_(std::move(details)) {}
  // For the code of another plugin.
  Error(int code, const std::string& message, std::string details)
      : std::runtime_error(message), code_(code), details_(std::move(details)) {}

  int code() const { return code_; }
  const std::string& details() const { return details_; }

 private:
  int code_;
  std::string details_;
};

}  // namespace vdpa::cni
